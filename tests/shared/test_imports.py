"""Importing the package is cheap: heavy libraries are imported where they are used."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "shared"
MODULES = sorted(
    ".".join(path.relative_to(SHARED).with_suffix("").parts)
    for path in SHARED.rglob("*.py")
    if not path.name.startswith("_")
)
ROOMS = sorted(path.parent.name for path in SHARED.glob("*/__init__.py"))
HEAVY = ("torch", "transformers", "datasets", "sklearn", "pandas", "scipy", "numba", "evaluate")
# Modules that are of no use without a heavy library, and import it at the top.
WITH_TORCH = {
    "llm.local_model",
    *("methods.mean_pooling", "methods.static_embeddings", "methods.zero_shot"),
    *("methods.prompting", "models.causal_scoring", "taggers.language_model"),
    *(
        "models.first_weights",
        "models.forecasters",
        "models.heads",
        "models.image_networks",
        "models.multi_task",
        "models.networks",
        "models.output_layer",
        "models.recurrent_generators",
        "models.small_language_models",
        "models.tabular_networks",
        "models.text_generators",
        "models.transformer",
    ),
    "models.padding",
    *("training.adapters", "training.arguments", "training.batches"),
    *("training.cloze", "training.consistency", "training.consistency_losses"),
    *("methods.uncertainty", "methods.pseudo_labels", "methods.co_training"),
    *("training.callbacks", "training.health", "training.optimization"),
    *("models.gan_networks", "training.adversarial", "training.sequences"),
    "training.signals",
    *("training.trainer", "taggers.arguments", "taggers.zero_shot"),
}
WITH_SKLEARN = {
    "methods.active_learning",
    *("methods.probe", "methods.self_training", "taggers.embeddings", "taggers.onnx_export"),
}
WITH_NUMBA = {"data.near_duplicates"}
WITH_EVALUATE = {
    *("evaluation.evaluate_base", "evaluation.evaluate_modules", "evaluation.text_modules"),
}
WITH_FASTAPI = {"serving.annotation_app", "serving.app", "serving.http"}
LIGHT = set(MODULES) - WITH_TORCH - WITH_SKLEARN - WITH_NUMBA - WITH_EVALUATE - WITH_FASTAPI

# NumPy, which almost every module needs, is timed in the same process: how much longer the modules
# take than it does not depend on how fast and how busy the core is.
SCRIPT = """
import importlib, json, sys, time
start = time.process_time()
import numpy
numpy_seconds = time.process_time() - start
start = time.process_time()
heavy = {}
for name in sys.argv[2:]:
    importlib.import_module(name)
    for library in sys.argv[1].split():
        if library in sys.modules and library not in heavy:
            heavy[library] = name
print(json.dumps([time.process_time() - start, numpy_seconds, heavy]))
"""


def fresh_import(*names):
    """Return the seconds of some imports, those of NumPy, and which module imported what is heavy.

    The seconds are processor time, and those of the modules do not include NumPy.
    """
    command = [sys.executable, "-c", SCRIPT, " ".join(HEAVY), *names]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def is_quick(seconds, numpy_seconds):
    """Whether it is less than five times NumPy: half a second. A heavy library takes a second."""
    return seconds < 5 * numpy_seconds


def test_importing_shared_and_its_rooms_is_quick():
    rooms = ["shared", *(f"shared.{room}" for room in ROOMS)]
    assert any(is_quick(*fresh_import(*rooms)[:2]) for _ in range(3))


@pytest.mark.parametrize("room", ROOMS)
def test_the_light_modules_of_a_room_are_quick_and_import_nothing_heavy(room):
    names = [f"shared.{name}" for name in sorted(LIGHT) if name.startswith(f"{room}.")]
    for _ in range(3):  # the first run may write byte code
        seconds, numpy_seconds, heavy = fresh_import(*names)
        assert heavy == {}
        if is_quick(seconds, numpy_seconds):
            break
    else:
        pytest.fail(f"the imports take {seconds:.2f} s, NumPy {numpy_seconds:.2f} s")


def test_most_modules_are_light():
    assert {"cli.arguments", "data.corpus", "evaluation.metrics", "models.loading"} <= LIGHT
    assert len(LIGHT) > 30


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_offers_every_name_of_its_table(room):
    module = importlib.import_module(f"shared.{room}")
    for name in module.__all__:
        assert getattr(module, name) is not None
