import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from shared.project import imported_modules

ROOT = Path(__file__).parents[2]
MODULES = sorted(path.stem for path in (ROOT / "shared").glob("[!_]*.py"))
HEAVY = ("torch", "transformers", "datasets", "sklearn", "pandas", "scipy", "numba", "evaluate")
# Modules that are nothing without a heavy library, and import it at the top.
WITH_TORCH = {
    *("adapters", "callbacks", "cards", "classifier", "embeddings", "hardware", "health"),
    "masking",
    *("networks", "optimization", "out_of_fold", "pooling", "regularization", "results"),
    *("trainer", "training_arguments"),
}
WITH_SKLEARN = {"lsa", "probe"}
WITH_NUMBA = {"duplicates"}
WITH_EVALUATE = {"evaluate_modules"}
LIGHT = set(MODULES) - WITH_TORCH - WITH_SKLEARN - WITH_NUMBA - WITH_EVALUATE

SCRIPT = """
import importlib, json, sys, time
start = time.perf_counter()
import shared
seconds = time.perf_counter() - start
heavy = {}
for name in sys.argv[2:]:
    importlib.import_module("shared." + name)
    for library in sys.argv[1].split():
        if library in sys.modules and library not in heavy:
            heavy[library] = name
print(json.dumps([seconds, heavy]))
"""


def fresh_import(*names):
    """Return the seconds that ``import shared`` took, and which module imported what is heavy."""
    command = [sys.executable, "-c", SCRIPT, " ".join(HEAVY), *names]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_importing_shared_takes_under_a_third_of_a_second():
    assert min(fresh_import()[0] for _ in range(3)) < 0.3


def test_light_modules_import_nothing_heavy():
    assert {"arguments", "data", "errors", "metrics", "models", "splitters"} <= LIGHT
    _, heavy = fresh_import(*sorted(LIGHT))
    assert heavy == {}


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name):
    path = ROOT / "shared" / f"{name}.py"
    below = imported_modules(ROOT, path)
    assert path not in below
    for other in below:
        assert "recipes" not in imported_packages(other)


def imported_packages(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import, which `copy` does not follow"
            names.add(node.module.split(".")[0])
    return names
