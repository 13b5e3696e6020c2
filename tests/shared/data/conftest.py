import json

import pytest
from tiny_corpora import write

from shared.cli.errors import UserError
from shared.data.arguments import DataArguments
from shared.data.corpus import load_data


@pytest.fixture
def load(tmp_path):
    """`load(rows or path, **flags)` with a cache of its own."""

    def load(source, *, label_names=None, **flags):
        if isinstance(source, list):
            lines = "".join(json.dumps(row) + "\n" for row in source)
            source = write(tmp_path / "rows.jsonl", lines)
        flags.setdefault("cache_dir", str(tmp_path / "cache"))
        return load_data(DataArguments(data=str(source), **flags), label_names=label_names)

    return load


@pytest.fixture
def mistake(load):
    """`mistake(...)` calls `load(...)` and returns its error message, which must be one line."""

    def mistake(*args, **kwargs):
        with pytest.raises(UserError) as error:
            load(*args, **kwargs)
        assert "\n" not in str(error.value)
        return str(error.value)

    return mistake
