"""Flags of a recipe: a dataclass of defaults, a YAML file, the command line, and clear errors."""

import argparse
import copy
import dataclasses
import difflib
import json
import sys
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from shared.cli.errors import UserError

Arguments = TypeVar("Arguments")

# Flags that change no result: folders and speed.
_NO_EFFECT_ON_RESULTS = (
    *("output_dir", "cache_dir", "resume_from_checkpoint", "health_check"),
    *("per_device_eval_batch_size", "dataloader_num_workers", "tag_unlabelled"),
    "top_scores",
)


def flag(default: Any, help: str) -> Any:
    """Declare a flag of an arguments dataclass: its default and its text in ``--help``."""
    metadata = {"help": help.replace("%", "%%")}  # argparse formats it with the % operator
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse_arguments(
    arguments_class: type[Arguments],
    argv: list[str] | None = None,
    *,
    description: str | None = None,
) -> Arguments:
    """Build the arguments of a recipe from the command line.

    ``--config FILE.yaml`` sets defaults, and flags override them. ``--help`` shows the recipe's own
    flags, ``--help_all`` also the flags of `transformers.TrainingArguments`.

    Parameters
    ----------
    arguments_class : type
        A dataclass. Every field is a flag; `flag` declares it.
    argv : list of str, optional
        The command line without the program's name; ``sys.argv[1:]`` by default.
    description : str, optional
        Shown above the flags by ``--help``; usually the docstring of the recipe.

    Raises
    ------
    UserError
        For an unknown flag or key, a value of the wrong type, an unreadable file, or a combination
        of flags that the dataclass refuses.
    """
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UserError(f"{message}; --help lists the flags")

    parser = Parser(
        arguments_class,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="YAML file of defaults for the flags")
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help", "--help_all"} & set(argv):
        _print_help(parser, arguments_class, everything="--help_all" in argv)
        raise SystemExit(0)

    names = {field.name for field in dataclasses.fields(arguments_class) if field.init}  # type: ignore[arg-type]  # a dataclass
    # Checked here, for argparse does not suggest similar flags. The parser's own table also has
    # --no_x, which HfArgumentParser adds for every boolean flag x that is true by default.
    for option in (word.split("=")[0] for word in argv if word.startswith("--")):
        if option not in parser._option_string_actions:
            raise UserError(f"unknown flag {option}{_suggest(option[2:], names, '--')}")
    namespace = parser.parse_args(argv)
    if (path := namespace.config) is not None:
        try:
            defaults = parser.parse_args(_config_flags(path, names))
        except UserError as error:
            raise UserError(f"--config {path}: {error}") from None
        namespace = parser.parse_args(argv, defaults)
    try:
        arguments = arguments_class(**{name: getattr(namespace, name) for name in names})
    except (ValueError, TypeError) as error:
        raise UserError(f"these flags do not fit together: {error}") from error
    seed = getattr(arguments, "seed", 0)
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {seed}: must be 0 or more, below {2**32}")
    top_scores = getattr(arguments, "top_scores", None)
    if top_scores is not None and top_scores < 1:
        raise UserError(f"--top_scores {top_scores}: must be 1 or more")
    return arguments


def command_flags(arguments: Any, arguments_class: type) -> list[str]:
    """Return the flags that differ from their defaults, as words of a command line.

    The inverse of `parse_arguments`, to pass flags to another recipe.

    Parameters
    ----------
    arguments : an instance of `arguments_class` or of a subclass.
    arguments_class : type
        A dataclass. Flags that only the subclass has are left out.
    """
    default, flags = arguments_class(), []
    for field in dataclasses.fields(arguments_class):
        value = getattr(arguments, field.name)
        if value == getattr(default, field.name):
            continue
        if isinstance(value, list):
            flags += [f"--{field.name}", *map(str, value)]
        else:
            flags.append(f"--{field.name}={value}")
    return flags


def result_flags(arguments: Any, arguments_class: type, *ignored: str) -> list[str]:
    """Return those of `command_flags` that change the results of a run.

    Flags about folders and speed, and those named in `ignored`, are left out.
    """
    arguments, default = copy.copy(arguments), arguments_class()
    for name in (*_NO_EFFECT_ON_RESULTS, *ignored):
        if hasattr(default, name):
            setattr(arguments, name, getattr(default, name))
    return command_flags(arguments, arguments_class)


def _config_flags(path: str, names: set[str]) -> list[str]:
    """Turn a YAML file into command-line flags, so that both are checked and converted alike."""
    import yaml

    class Words(yaml.SafeLoader):
        """Reads yes, no, on and off as words, as a command line does, and not as booleans."""

        yaml_implicit_resolvers = {  # noqa: RUF012
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    try:
        text = Path(path).read_text(encoding="utf-8")
        values, words = yaml.safe_load(text) or {}, yaml.load(text, Words)
    except OSError as error:
        raise UserError(error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError("expected 'flag: value' lines")
    flags = []
    for name, value in values.items():
        if name not in names:
            raise UserError(f"unknown flag {name!r}{_suggest(str(name), names)}")
        if isinstance(value, dict):
            flags.append(f"--{name}={json.dumps(value)}")
        elif isinstance(value, list):
            flags += [f"--{name}", *map(str, words[name])]
        elif value is not None:
            flags.append(f"--{name}={words[name]}")
    return flags


def _suggest(name: str, names: set[str], prefix: str = "") -> str:
    """Return the end of an error message: the most similar of the names, if there is one."""
    close = difflib.get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else "; --help lists the flags"


def _print_help(
    parser: argparse.ArgumentParser, arguments_class: type, *, everything: bool
) -> None:
    """Print the flags of the recipe; with `everything`, also the 130 that it inherits."""
    recipe_flags = {"config"}.union(
        *(
            vars(base).get("__annotations__", {})
            for base in arguments_class.__mro__
            if base.__module__.split(".")[0] != "transformers"
        )
    )
    for action in parser._actions:
        action.option_strings = action.option_strings[:1]  # --output_dir without --output-dir
    formatter = argparse.RawDescriptionHelpFormatter(prog=parser.prog, width=100)
    formatter.add_text(parser.description)
    formatter.start_section("flags")
    formatter.add_arguments(
        action for action in parser._actions if everything or action.dest in recipe_flags
    )
    formatter.end_section()
    if not everything:
        formatter.add_text("--help_all also lists every flag of transformers.TrainingArguments.")
    print(formatter.format_help())
