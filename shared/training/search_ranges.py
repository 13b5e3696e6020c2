"""The ranges of a hyper-parameter search, read from YAML, and their values as flags."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Mapping, Set
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.cli.yaml_files import read_yaml

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def read_ranges(path: Path, flags: Set[str]) -> dict[str, BaseDistribution]:
    """Read which flags a search varies, and between which values.

    The file is YAML: for each flag a list of values, or a mapping of `low` and `high` with `log:
    true` for a logarithmic scale or a `step`. Numbers without a decimal point are whole numbers.

    Parameters
    ----------
    path : Path
    flags : set of str
        The names of all flags of the recipe.

    Raises
    ------
    UserError
        If the file cannot be read, or a range is not as above. The message names file and flag.
    """
    from optuna.distributions import CategoricalDistribution

    try:
        content = read_yaml(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path}: must have a line 'FLAG: range' for each flag to vary")
    ranges: dict[str, BaseDistribution] = {}
    for name, values in content.items():
        if name not in flags:
            close = get_close_matches(str(name), sorted(flags), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"{path}: {name}: the recipe has no such flag{hint}")
        place = f"{path}: {name}"
        if isinstance(values, dict):
            ranges[name] = _numbers(values, place)
        elif isinstance(values, list) and len(values) > 1:
            if any(not isinstance(value, str) for value in values):
                raise UserError(f"{place}: a value must be a word, or several in one string")
            ranges[name] = CategoricalDistribution(values)
        else:
            raise UserError(f"{place}: must be a list of values, or a mapping of low and high")
    return ranges


def _numbers(values: Mapping[str, Any], place: str) -> BaseDistribution:
    """Return the range of a mapping of low, high, and step or log."""
    from optuna.distributions import FloatDistribution, IntDistribution

    unknown = sorted({*values} - {"low", "high", "step", "log"})
    if unknown or not {"low", "high"} <= {*values}:
        raise UserError(f"{place}: must have low and high, and may have step or log")
    log = values.get("log", "false")
    if log not in ("true", "false"):
        raise UserError(f"{place}: log {log!r}: must be true or false")
    texts = [values[key] for key in ("low", "high", "step") if key in values]
    number: Any = int
    for text in texts:
        with contextlib.suppress(TypeError, ValueError):
            int(text)
            continue
        number = float
    try:
        low, high, *step = (number(text) for text in texts)
    except (TypeError, ValueError):
        raise UserError(f"{place}: low, high and step must be numbers") from None
    options = {"step": step[0]} if step else {}
    if log == "true" and (low <= 0 or step):
        raise UserError(f"{place}: a logarithmic range needs a low above 0, and has no step")
    if not low < high < math.inf or any(size <= 0 for size in step):
        raise UserError(f"{place}: low must be below high, and a step above 0")
    distribution = IntDistribution if number is int else FloatDistribution
    return distribution(low, high, log=log == "true", **options)


def value_flags(values: Mapping[str, Any]) -> list[str]:
    """Return the values of a trial as words of a command line.

    Parameters
    ----------
    values : mapping of flag to str, int or float
        A string may hold several words, quoted as in a shell. Floats keep four digits.
    """
    words = []
    for name, value in values.items():
        texts = shlex.split(value) if isinstance(value, str) else [shown_value(value)]
        if len(texts) == 1:
            words.append(f"--{name}={texts[0]}")
        else:
            words += [f"--{name}", *texts]
    return words


def shown_value(value: Any) -> str:
    """Return a value of a trial as text."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
