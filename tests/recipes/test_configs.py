"""Every YAML that ships is one that its recipe, or accelerate, accepts; so is every command."""

import re
import shlex
from dataclasses import is_dataclass
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from command_line import ROOT, load_recipe

from shared.cli.arguments import parse_arguments
from shared.cli.errors import UserError

CONFIGS = ROOT / "recipes" / "configs"
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
names = pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
accelerate_names = pytest.mark.parametrize(
    "path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=lambda path: path.stem
)


def arguments_class(recipe):
    """The dataclass of a recipe's flags."""
    module = load_recipe(recipe)
    (found,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
    )
    return found


def commands(text):
    """The commands in text: those of a file's comments or of a docstring, as lists of words."""
    text = re.sub(r"(?m)^#", "", text).replace("\\\n", " ")
    return [
        shlex.split(line)
        for line in text.splitlines()
        if line.strip().startswith(("accelerate launch ", "torchrun "))
    ]


@names
def test_a_config_fits_the_recipe_that_its_header_names(path):
    (command,) = commands(path.read_text(encoding="utf-8"))
    *launch, script, flag, config = command
    assert launch == ["accelerate", "launch"]
    assert (flag, ROOT / config) == ("--config", path)
    arguments = parse_arguments(arguments_class(Path(script).stem), [flag, str(path)])
    for name, value in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        found = getattr(arguments, name)
        assert found == type(found)(value)  # YAML reads 5e-5 as text


def test_a_config_with_a_misspelt_flag_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data: sample\nnum_train_epoch: 3\n")
    with pytest.raises(UserError, match=r"mine.yaml.*num_train_epoch.*mean num_train_epochs"):
        parse_arguments(arguments_class("github_tagger"), ["--config", str(path)])


@accelerate_names
def test_accelerate_accepts_its_config(path):
    config = load_config_from_file(str(path))  # refuses keys it does not know
    assert config.num_processes >= 1
    assert config.mixed_precision == "no"


@accelerate_names
def test_accelerate_accepts_the_command_of_its_config(path):
    for command in commands(path.read_text(encoding="utf-8")):
        if command[0] == "torchrun":
            continue
        args = launch_command_parser().parse_args(command[2:])
        assert ROOT / args.config_file == path
        args, config, _ = _validate_launch_command(args)
        assert args.num_processes == config.num_processes
        assert args.training_script == "recipes/NAME.py"


def test_there_are_configs_for_the_usual_machines():
    found = {path.stem for path in (CONFIGS / "accelerate").glob("*.yaml")}
    assert found == {"one_cpu", "one_gpu", "several_gpus", "fsdp", "several_nodes"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_commands_of_a_docstring_can_be_typed(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = commands(load_recipe(recipe).__doc__)
    assert found
    for command in found:
        args = launch_command_parser().parse_args(command[2:])
        assert args.training_script == f"recipes/{recipe}.py"
        parse_arguments(arguments_class(recipe), args.training_script_args)
