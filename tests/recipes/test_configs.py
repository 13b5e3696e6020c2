"""Every YAML that ships is one that its recipe, or accelerate, accepts; so is every command."""

import importlib.util
import re
import shlex
from dataclasses import fields, is_dataclass
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
    (actual,) = (
        value
        for value in vars(module).values()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
    )
    return actual


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
        actual = getattr(arguments, name)
        assert actual == type(actual)(value)  # YAML reads 5e-5 as text


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
    actual = {path.stem for path in (CONFIGS / "accelerate").glob("*.yaml")}
    assert actual == {"one_cpu", "one_gpu", "several_gpus", "fsdp", "several_nodes"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_commands_of_a_docstring_can_be_typed(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    actual = commands(load_recipe(recipe).__doc__)
    assert actual
    for command in actual:
        args = launch_command_parser().parse_args(command[2:])
        assert args.training_script == f"recipes/{recipe}.py"
        parse_arguments(arguments_class(recipe), args.training_script_args)


# --- the documentation ---------------------------------------------------------------------------

DOCUMENTS = ("README.md", "recipes/README.md", "recipes/FIGURES.md", "CONTRIBUTING.md")
documents = pytest.mark.parametrize("document", DOCUMENTS)


def read(document):
    return (ROOT / document).read_text(encoding="utf-8")


def documented_commands(text):
    """Yield the commands in the code of a Markdown text, as lists of words without variables."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in [*"".join(blocks).splitlines(), *spans]:
        words = re.sub(r"^(\w+=\S+ )+", "", line)
        if words.startswith(("./run.sh", "accelerate launch ", "python tests/")):
            yield shlex.split(words, comments=True)


def check_recipe(recipe, flags, tmp_path):
    """Parse the flags of a recipe's command."""
    assert recipe in RECIPES
    if "--help" in flags:
        return
    example = tmp_path / "mine.yaml"  # the config that recipes/README.md shows
    example.write_text(read("recipes/README.md").split("```yaml\n")[1].split("```")[0])
    flags = [str(example) if word == example.name else word for word in flags]
    if "setfit" in flags and importlib.util.find_spec("setfit") is None:
        return  # the optional peer; the recipe refuses it where it is not installed
    parse_arguments(arguments_class(recipe), flags)


@documents
def test_the_commands_of_the_documents_can_be_typed(document, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    actual = list(documented_commands(read(document)))
    assert actual
    for command in actual:
        program, *words = command
        if any("$" in word or word.isupper() for word in words):
            continue  # a placeholder
        if program == "accelerate":
            args = launch_command_parser().parse_args(words[1:])
            check_recipe(Path(args.training_script).stem, args.training_script_args, tmp_path)
        elif program == "python":
            assert (ROOT / words[0]).is_file()
            for word in words[1:]:
                assert not word.startswith("--") or word in read(words[0])
        elif words and words[0] == "test":
            assert all((ROOT / word).is_file() for word in words[1:])
        elif words and words[0] == "copy":
            assert {*words[1:2]} <= {*RECIPES}
        elif words and words[0] not in ("setup", "--help"):
            check_recipe(words[0], words[1:], tmp_path)


def test_the_flags_of_the_documents_are_those_of_a_recipe():
    flags = {field.name for recipe in RECIPES for field in fields(arguments_class(recipe))}
    for document in ("README.md", "recipes/README.md"):
        for span in re.findall(r"`(--[^`\n]+)`", read(document)):
            name = span.split()[0].removeprefix("--")
            assert name in {*flags, "config"}, f"{document}: {span}"


@documents
def test_the_links_of_the_documents_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", read(document)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", target.read_text(encoding="utf-8"))
            slugs = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings]
            assert anchor in slugs, link


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_has_a_row_in_the_table_of_recipes(recipe):
    rows = re.findall(rf"(?m)^\| \[{recipe}\]\({recipe}\.py\) \|.*$", read("recipes/README.md"))
    assert len(rows) == 1
    assert f"`./run.sh {recipe}" in rows[0]
