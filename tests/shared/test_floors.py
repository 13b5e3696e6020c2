"""The order of the rooms: the contracts of import-linter in setup.cfg hold, and can fail."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lint_imports(folder):
    """Run import-linter in a folder that holds setup.cfg and shared/."""
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": str(folder), "NO_COLOR": "1", "COLUMNS": "200"},
    )


def copy_with(tmp_path, module, line):
    """Copy the package, with one more line at the end of a module."""
    shutil.copytree(ROOT / "shared", tmp_path / "shared")
    shutil.copy(ROOT / "setup.cfg", tmp_path)
    path = tmp_path / "shared" / module
    path.write_text(path.read_text(encoding="utf-8") + f"\n\n{line}\n", encoding="utf-8")
    return tmp_path


def test_every_room_imports_only_from_those_below():
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_an_import_from_above_is_named(tmp_path):
    folder = copy_with(tmp_path, "data/splits.py", "from shared.training import losses")
    result = lint_imports(folder)
    assert result.returncode == 1
    assert "shared.data.splits -> shared.training.losses" in result.stdout


def test_a_module_outside_the_order_is_named(tmp_path):
    folder = copy_with(tmp_path, "cli/errors.py", "")
    (folder / "shared" / "attic.py").write_text("")
    result = lint_imports(folder)
    assert result.returncode == 1
    assert "attic" in result.stdout


def test_recipes_import_no_recipe_and_shared_no_recipe():
    for path in [*ROOT.glob("recipes/*.py"), *ROOT.glob("shared/**/*.py")]:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [
            line for line in lines if line.lstrip().startswith(("from recipes", "import recipes"))
        ]
