"""YAML files that a user writes."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from shared.cli.errors import UserError


def read_yaml(path: str | Path, *, types: bool = False) -> Any:
    """Return the content of a YAML file.

    Parameters
    ----------
    path : str or Path
    types : bool
        Whether plain words are read as YAML reads them: ``010`` as 8, ``yes`` as True, ``null`` as
        None. Without it every word stays the text that it is, as on a command line.

    Raises
    ------
    UserError
        If the file cannot be read, is not valid YAML, repeats a key, or has aliases, which can make
        a short file endless. The message does not name the file.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses aliases and repeated keys."""

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                mark = self.peek_event().start_mark
                raise yaml.YAMLError(f"line {mark.line + 1}: aliases (*name) are not supported")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            names = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in names:
                        place = f"line {key.start_mark.line + 1}"
                        raise yaml.YAMLError(f"{place}: {key.value!r} is there a second time")
                    names.add(key.value)
            return super().construct_mapping(node, deep)

    if not types:
        Loader.yaml_implicit_resolvers = {}
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader)
    except OSError as error:
        raise UserError(error.strerror) from error
    except RecursionError:
        raise UserError("not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # a date such as 2020-13-45
        reason = " ".join(str(error).split())  # YAML errors have several lines
        raise UserError(f"not valid YAML: {reason}") from error
