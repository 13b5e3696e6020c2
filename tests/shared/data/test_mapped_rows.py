"""Mapped rows: from the cache whenever nothing changed, and nothing else in the cache."""

import numpy as np
import pytest
from datasets import Dataset

from shared.data.arguments import DataArguments
from shared.data.corpus import load_data
from shared.data.mapped_rows import add_column, map_rows
from shared.models.loading import load_tokenizer
from shared.models.tokenizers import forget_padding, tokenize


def inodes(folder):
    """Return the files of a folder; one that is written again has another number."""
    return {(path, path.stat().st_ino) for path in folder.iterdir()}


def lengths(batch):
    return {"length": [len(text) for text in batch["text"]]}


def reversed_texts(batch):
    return {"text": [text[::-1] for text in batch["text"]]}


@pytest.fixture
def dataset(tiny_issues, tmp_path):
    return load_data(DataArguments(data=str(tiny_issues), cache_dir=str(tmp_path))).dataset


def test_rows_are_those_of_datasets_and_are_computed_once(dataset, tmp_path):
    rows = dataset.select(range(5, 50))
    names = dataset.column_names
    for function, settings in ((lengths, {"remove_columns": names}), (reversed_texts, {})):
        expected = rows.map(function, batched=True, keep_in_memory=True, **settings)
        files = [inodes(tmp_path)]
        for _ in range(2):
            mapped = map_rows(rows, function, **settings)
            assert mapped.features == expected.features
            assert mapped.to_dict() == expected.to_dict()
            files.append(inodes(tmp_path))
        assert files[1] == files[2]
        ((new, _),) = files[1] - files[0]
        assert new.name.startswith("mapped-")


def test_a_column_is_added(dataset):
    rows, values = dataset.select(range(7, 30)), np.arange(23) * 2
    assert add_column(rows, "new", values)["new"][:] == values.tolist()
    assert add_column(rows, "new", values + 1)["new"][:] == (values + 1).tolist()
    expected = rows.add_column("new", values)
    added = add_column(rows, "new", values)
    assert added.to_dict() == expected.to_dict()
    assert added.features == expected.features


def test_rows_in_memory_and_no_rows_at_all(dataset, tmp_path):
    before = {*tmp_path.iterdir()}
    rows = map_rows(Dataset.from_dict({"text": ["ab", "c"]}), lengths)
    assert rows["length"][:] == [2, 1]
    assert len(map_rows(dataset.select([]), lengths)) == 0
    assert {*tmp_path.iterdir()} == before


def test_an_error_leaves_nothing_in_the_cache(dataset, tmp_path):
    def fail(batch):
        raise RuntimeError("no such batch")

    before = {*tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="no such batch"):
        map_rows(dataset, fail)
    assert {*tmp_path.iterdir()} == before


def test_the_last_call_of_a_tokenizer_is_neither_in_the_key_nor_in_its_file(
    dataset, tiny_model, tmp_path
):
    saved, caches = [], []
    for number in range(3):
        tokenizer = load_tokenizer(str(tiny_model))
        if number:  # the first run tokenises, the others read the cache
            tokenizer(["a text"] * 2, padding="max_length", truncation=True, max_length=7 * number)
        tokenize(dataset, tokenizer)
        forget_padding(tokenizer)
        tokenizer.save_pretrained(folder := tmp_path / f"tokenizer_{number}")
        saved.append((folder / "tokenizer.json").read_bytes())
        caches.append({file for file in inodes(tmp_path) if file[0].suffix == ".arrow"})
    assert caches[0] == caches[1] == caches[2]
    assert saved[0] == saved[1] == saved[2]
