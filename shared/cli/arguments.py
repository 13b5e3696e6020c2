"""Flags of a recipe: a dataclass of defaults, a YAML file, the command line, and clear errors."""

import argparse
import copy
import dataclasses
import difflib
import functools
import json
import os
import sys
from typing import Any, NoReturn, TypeVar

from shared.cli.errors import UserError, first_line, is_raised_by_library
from shared.cli.standard_flags import (
    Range,
    check_ranges,
    check_standard_flags,
    require_package,
)
from shared.cli.yaml_files import read_yaml

Arguments = TypeVar("Arguments")

# Flags that change no result: folders, speed, and what is published.
_NO_EFFECT_ON_RESULTS = (
    *("output_dir", "cache_dir", "resume_from_checkpoint", "health_check"),
    *("per_device_eval_batch_size", "dataloader_num_workers", "tag_unlabelled"),
    *("top_scores", "push_to_hub", "hub_model_id", "hub_strategy", "hub_token"),
    *("hub_private_repo", "hub_always_push", "hub_revision", "license", "language"),
)

# Flags of TrainingArguments that are declared as one word; in a YAML file they can be a list.
_ONE_OR_SEVERAL = ("report_to", "optim_target_modules", "debug")
# Flags that only some recipes have, and what to do.
_FLAGS_OF_OTHERS = dict.fromkeys(
    ("split_by", "split_time"),
    ": this recipe cannot divide rows by a column; --help lists its flags",
)
# A flag has no effect while another one has certain values: flag -> (the other one, the value of it
# that lets the flag act).
_SILENCED_BY: dict[str, tuple[str, Any]] = {
    "num_train_epochs": ("max_steps", -1),
    "eval_steps": ("eval_strategy", "steps"),
    "save_steps": ("save_strategy", "steps"),
    "logging_steps": ("logging_strategy", "steps"),
}


def flag(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """Declare a flag of an arguments dataclass: default, text in ``--help``, range of a number.

    Parameters
    ----------
    default : any
    help : str
    least, most, above, below : float, optional
        The ends of the range; see `Range`. Without them, a flag of `transformers.TrainingArguments`
        has its usual range, and any other one accepts every finite number.
    """
    metadata: dict[str, Any] = {"help": help.replace("%", "%%")}  # argparse formats it with %
    if (least, most, above, below) != (None,) * 4:
        metadata["range"] = Range(least=least, most=most, above=above, below=below)
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
    parser = _make_parser(arguments_class)  # type: ignore[arg-type]  # a class
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help", "--help_all"} & set(argv):
        _print_help(parser, arguments_class, description, everything="--help_all" in argv)
        raise SystemExit(0)

    names = {field.name for field in dataclasses.fields(arguments_class) if field.init}  # type: ignore[arg-type]  # a dataclass
    # Checked here, for argparse does not suggest similar flags. The parser's own table also has
    # --no_x, which HfArgumentParser adds for every boolean flag x that is true by default.
    for option in (word.split("=")[0] for word in argv if word.startswith("--")):
        if option not in parser._option_string_actions:
            raise UserError(f"unknown flag {option}{_suggest(option[2:], names, '--')}")
    namespace = parser.parse_args(argv)
    on_command_line, in_config = _named_flags(parser, argv), set[str]()
    if (path := namespace.config) is not None:
        try:
            words = _config_flags(path, parser)
            defaults = parser.parse_args(words)
        except UserError as error:
            raise UserError(f"--config {path}: {error}") from None
        namespace = parser.parse_args(argv, defaults)
        in_config = _named_flags(parser, words)
    # Copies, since the default of a list is one that the parser keeps.
    values = {name: copy.copy(getattr(namespace, name)) for name in names}
    # A flag of the user acts: it is not silenced by a default or, if it stands on the command line,
    # by the config.
    for named, kept in ((in_config, in_config | on_command_line), (on_command_line,) * 2):
        for name, (other, value) in _SILENCED_BY.items():
            if name in named and other in names - kept:
                values[other] = value
    _follow_evaluation(values, in_config | on_command_line)
    check_ranges(dataclasses.fields(arguments_class), values)  # type: ignore[arg-type]
    arguments = _build(arguments_class, values)
    arguments._named_flags = frozenset(in_config | on_command_line)  # type: ignore[attr-defined]
    return arguments


@functools.lru_cache(maxsize=1)
def _make_parser(arguments_class: type) -> Any:
    """Return the parser of the flags; kept, for who parses more than one command line."""
    from transformers import HfArgumentParser

    class Parser(HfArgumentParser):
        def add_argument(self, *args: Any, range: Range | None = None, **options: Any) -> Any:
            # argparse does not know ranges; `check_ranges` reads them from the field.
            return super().add_argument(*args, **options)

        def error(self, message: str) -> NoReturn:
            raise UserError(f"{message}; --help lists the flags")

    parser = Parser(
        arguments_class,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="YAML file of defaults for the flags")
    return parser


def named_flags(arguments: Any) -> frozenset[str]:
    """Return the names of the flags that the user has set, on the command line or in a config."""
    return getattr(arguments, "_named_flags", frozenset())


def _build(arguments_class: type[Arguments], values: dict[str, Any]) -> Arguments:
    """Build the dataclass; whatever it raises is about the values of the flags."""
    from transformers.utils import logging

    if "TRANSFORMERS_VERBOSITY" not in os.environ:
        logging.set_verbosity_error()  # transformers also warns of flags that nobody set
    if values.get("deepspeed"):  # TrainingArguments imports it
        require_package("deepspeed", "--deepspeed")
    try:
        arguments = arguments_class(**values)
        # Recipes whose flags are no TrainingArguments need no torch, which takes seconds to import.
        training = sys.modules.get("transformers.training_args")
        if training is not None and isinstance(arguments, training.TrainingArguments):
            check_standard_flags(arguments)
        return arguments
    except UserError:
        raise
    except Exception as error:
        # transformers raises anything here, also AttributeError and ZeroDivisionError. In a recipe
        # these are faults of the recipe.
        if not isinstance(error, (ValueError, TypeError)) and not is_raised_by_library(error):
            raise
        raise UserError(f"these flags do not fit together: {first_line(error)}") from error


def _follow_evaluation(values: dict[str, Any], named: set[str]) -> None:
    """Let defaults follow an ``--eval_strategy`` of the user, which they would contradict."""
    if "eval_strategy" not in named:
        return
    strategy = values["eval_strategy"]
    changes = {"save_strategy": strategy, "save_steps": values.get("eval_steps")}
    if strategy == "no":
        changes = {"load_best_model_at_end": False}
    values |= {name: v for name, v in changes.items() if name not in named and v is not None}


def _named_flags(parser: argparse.ArgumentParser, argv: list[str]) -> set[str]:
    """Return the names of the flags in a command line."""
    options = (word.split("=")[0] for word in argv if word.startswith("--"))
    return {parser._option_string_actions[option].dest for option in options}


def command_flags(arguments: Any, arguments_class: type) -> list[str]:
    """Return the flags that differ from their defaults, as words of a command line.

    The inverse of `parse_arguments`, to pass flags to another recipe.

    Parameters
    ----------
    arguments : an instance of `arguments_class` or of a subclass.
    arguments_class : type
        A dataclass. Flags that only the subclass has are left out.
    """
    default, flags = _defaults(arguments_class, arguments), []
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
    arguments, default = copy.copy(arguments), _defaults(arguments_class, arguments)
    for name in (*_NO_EFFECT_ON_RESULTS, *ignored):
        if hasattr(default, name):
            setattr(arguments, name, getattr(default, name))
    return command_flags(arguments, arguments_class)


def _defaults(arguments_class: type, arguments: Any) -> Any:
    """Return what the flags are by default, on the device of `arguments`.

    TrainingArguments set up the device for the whole process. With another device than that of the
    run, several processes on CPUs would no longer know of each other.
    """
    names = {field.name for field in dataclasses.fields(arguments_class)}
    return arguments_class(**({"use_cpu": arguments.use_cpu} if "use_cpu" in names else {}))


def _config_flags(path: str, parser: argparse.ArgumentParser) -> list[str]:
    """Turn a YAML file into command-line flags, so that both are checked and converted alike."""
    values, words = read_yaml(path, types=True) or {}, read_yaml(path)
    if not isinstance(values, dict):
        raise UserError("expected 'flag: value' lines")
    actions = {action.dest: action for action in parser._actions if action.dest != "config"}
    flags = []
    for name, value in values.items():
        if name not in actions:
            raise UserError(f"unknown flag {name!r}{_suggest(str(name), set(actions))}")
        if isinstance(value, dict):
            flags.append(f"--{name}={json.dumps(value, default=str)}")
        elif isinstance(value, list):
            # `report_to` and a few others of transformers take one name or a list of one.
            takes_list = actions[name].nargs is not None or name in _ONE_OR_SEVERAL
            if not takes_list or any(isinstance(item, (list, dict)) for item in value):
                expected = "a list of plain values" if takes_list else "one value, not a list"
                raise UserError(f"{name}: expected {expected}")
            if actions[name].nargs is None and len(value) > 1:
                raise UserError(f"{name}: expected one value, or a list of one")
            flags += [f"--{name}", *map(str, words[name])]
        elif value is not None:
            flags.append(f"--{name}={words[name]}")
    return flags


def _suggest(name: str, names: set[str], prefix: str = "") -> str:
    """Return the end of an error message: the most similar of the names, if there is one."""
    if hint := _FLAGS_OF_OTHERS.get(name):
        return hint
    close = difflib.get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else "; --help lists the flags"


def _print_help(
    parser: argparse.ArgumentParser,
    arguments_class: type,
    description: str | None,
    *,
    everything: bool,
) -> None:
    """Print the flags of the recipe; with `everything`, also the 130 that it inherits."""
    recipe_flags = {"config"}.union(
        *(
            vars(base).get("__annotations__", {})
            for base in arguments_class.__mro__
            if base.__module__.split(".")[0] != "transformers"
        )
    )
    actions = [copy.copy(action) for action in parser._actions]
    for action in actions:
        action.option_strings = action.option_strings[:1]  # --output_dir without --output-dir
    formatter = argparse.RawDescriptionHelpFormatter(prog=parser.prog, width=100)
    formatter.add_text(description)
    formatter.start_section("flags")
    formatter.add_arguments(
        action for action in actions if everything or action.dest in recipe_flags
    )
    formatter.end_section()
    if not everything:
        formatter.add_text("--help_all also lists every flag of transformers.TrainingArguments.")
    print(formatter.format_help())
