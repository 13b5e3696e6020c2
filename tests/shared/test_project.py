import ast
import configparser
import os
import subprocess
import sys
from modulefinder import ModuleFinder
from pathlib import Path

import pytest

from shared.errors import UserError
from shared.project import copy_recipe, imported_modules, launched_scripts

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def project(tmp_path):
    """Return a project of two recipes whose modules import each other in every way."""
    return write(
        tmp_path / "project",
        {
            "recipes/one.py": '"""Does one: thing.\n\nMore."""\nfrom shared.a import x\n',
            "recipes/two.py": '"""Two."""\nimport shared.f as f, shared.g\n',
            "recipes/configs/sample.yaml": "# accelerate launch recipes/one.py\n",
            "recipes/configs/other.yaml": "# accelerate launch recipes/two.py\n",
            "recipes/configs/accelerate/one_cpu.yaml": "a: 1\n",
            "recipes/data/issues.jsonl": "{}\n",
            "recipes/data/comments.jsonl": "{}\n",
            "recipes/data/README.md": "data\n",
            "recipes/data/make_sample.py": "",
            "shared/__init__.py": "",
            "shared/a.py": "from shared import b\nfrom shared.errors import UserError\nx = 1\n",
            "shared/b.py": "def f():\n    from shared.c import y\n    import shared._d\n",
            "shared/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            '    from shared.e import z\ny = "issues.jsonl"\n',
            "shared/_d.py": "import numpy\n",
            "shared/e.py": "z = 1\n",
            "shared/errors.py": "class UserError(Exception): pass\n",
            "shared/f.py": "",
            "shared/g.py": "",
            "shared/unused.py": "from shared import a\n",
            "run.sh": "#!/usr/bin/env bash\nmain_recipe=(two --x)\nrun ${main_recipe[@]}\n",
            "setup.cfg": "[metadata]\nname = recipes\ndescription = Many recipes\n",
            **dict.fromkeys(("pyproject.toml", "constraints.txt", "LICENSE", ".gitignore"), "x\n"),
            "tests/shared/test_a.py": "",
            "README.md": "of the project\n",
        },
    )


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- which modules -------------------------------------------------------------------------------


def test_follows_imports_of_every_form(project):
    found = imported_modules(project, project / "recipes" / "one.py")
    names = ["__init__", "_d", "a", "b", "c", "e", "errors"]
    assert [path.stem for path in found] == names
    found = imported_modules(project, project / "recipes" / "two.py")
    assert [path.stem for path in found] == ["__init__", "f", "g"]


@pytest.mark.parametrize("name", RECIPES)
def test_finds_what_the_interpreter_would_load(name):
    # The standard library's own finder reads byte code; it sees imports inside functions, too.
    def find(script):
        finder = ModuleFinder(path=[str(ROOT)])
        finder.run_script(str(script))
        found = (Path(module.__file__) for module in finder.modules.values() if module.__file__)
        return {path for path in found if path.parent == ROOT / "shared"}

    script = ROOT / "recipes" / f"{name}.py"
    found = set(imported_modules(ROOT, script))
    assert find(script) <= found
    # What is found beyond that is imported for type annotations only.
    for path in found - find(script):
        assert any(f"shared.{path.stem} import" in other.read_text() for other in found)


def test_what_a_recipe_launches_comes_along_with_its_modules(project, tmp_path):
    script = project / "recipes" / "one.py"
    script.write_text(
        '"""Does one: thing."""\n'
        'SCRIPTS = {"two": "recipes/two.py --flag", "x": "no/such.py", "": ""}\n'
    )
    assert launched_scripts(project, script) == [project / "recipes" / "two.py"]
    copy_recipe(project, "one", tmp_path / "copy")
    assert {"recipes/one.py", "recipes/two.py", "shared/f.py", "shared/g.py"} <= files(
        tmp_path / "copy"
    )
    assert launched_scripts(project, project / "recipes" / "two.py") == []


# --- the copy ------------------------------------------------------------------------------------


def test_copies_the_recipe_and_what_it_needs_and_nothing_else(project, tmp_path):
    folder = tmp_path / "My new project!"
    written = copy_recipe(project, "one", folder)
    assert {str(path.relative_to(folder)) for path in written} == files(folder)
    assert files(folder) == {
        *(f"shared/{name}.py" for name in ("__init__", "_d", "a", "b", "c", "e", "errors")),
        "recipes/one.py",
        "recipes/configs/sample.yaml",
        "recipes/configs/accelerate/one_cpu.yaml",
        "recipes/data/issues.jsonl",
        "recipes/data/README.md",
        *("run.sh", "setup.cfg", "pyproject.toml", "constraints.txt", "LICENSE", ".gitignore"),
        "README.md",
        "tests/test_smoke.py",
    }
    for name in files(folder) - {"run.sh", "setup.cfg", "README.md", "tests/test_smoke.py"}:
        assert (folder / name).read_bytes() == (project / name).read_bytes()
    config = configparser.ConfigParser()
    config.read(folder / "setup.cfg")
    assert dict(config["metadata"]) == {"name": "my-new-project", "description": "Does one: thing."}
    run = (folder / "run.sh").read_text().splitlines()
    assert run[1] == "main_recipe=(one --config recipes/configs/sample.yaml)"
    assert run[2] == "run ${main_recipe[@]}"
    assert (folder / "README.md").read_text().startswith("# one\n\nDoes one: thing.\n")
    assert '"one.py"' in (folder / "tests" / "test_smoke.py").read_text()
    ast.parse((folder / "tests" / "test_smoke.py").read_text())


def test_a_recipe_without_a_config_for_the_sample_runs_on_its_defaults(project, tmp_path):
    copy_recipe(project, "two", tmp_path / "copy")
    assert "main_recipe=(two)\n" in (tmp_path / "copy" / "run.sh").read_text()
    assert "recipes/configs/other.yaml" in files(tmp_path / "copy")
    assert "recipes/configs/sample.yaml" not in files(tmp_path / "copy")


def test_an_empty_folder_will_do_and_scripts_stay_executable(project, tmp_path):
    (project / "run.sh").chmod(0o755)
    folder = tmp_path / "empty"
    folder.mkdir()
    copy_recipe(project, "one", folder)
    assert os.access(folder / "run.sh", os.X_OK)
    assert not os.access(folder / "setup.cfg", os.X_OK)


def test_a_folder_that_holds_anything_is_refused_and_left_alone(project, tmp_path):
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / ".hidden").write_text("mine")
    for target in (folder, folder / ".hidden"):
        with pytest.raises(UserError, match=f"copy: {target} is not an empty folder"):
            copy_recipe(project, "one", target)
    assert files(folder) == {".hidden"}


@pytest.mark.parametrize("name", ["three", "one.py", ""])
def test_an_unknown_recipe_is_refused(project, tmp_path, name):
    with pytest.raises(UserError, match=r"no recipe '.*'; the recipes are one, two$"):
        copy_recipe(project, name, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_a_copy_of_a_real_recipe_is_complete(name, tmp_path):
    folder = tmp_path / "a copy"
    written = copy_recipe(ROOT, name, folder)
    assert f"main_recipe=({name}" in (folder / "run.sh").read_text()
    subprocess.run(["bash", "-n", folder / "run.sh"], check=True)
    scripts = [path for path in written if path.suffix == ".py"]
    assert len(scripts) > 5
    for path in scripts:
        assert str(ROOT) not in path.read_text(encoding="utf-8")
        if "tests" not in path.parts:
            below = imported_modules(ROOT, ROOT / path.relative_to(folder))
            assert {folder / other.relative_to(ROOT) for other in below} <= set(scripts)


def test_the_command(project, tmp_path):
    command = [sys.executable, "-m", "shared.project"]
    for arguments, code, words in (
        ([project, "one", tmp_path / "copy"], 0, "files in"),
        ([project, "one", tmp_path / "copy"], 2, "error: copy: "),
        ([project, "one"], 2, "error: usage: ./run.sh copy NAME FOLDER"),
    ):
        run = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == code
        printed = run.stdout + run.stderr
        assert words in printed
        assert printed.count("\n") == 1


def test_a_copy_brings_the_model_and_the_settings_that_it_names(project, tmp_path):
    write(
        project,
        {
            "recipes/three.py": '"""Three."""\nMODEL = "models" / "small"\n',
            "recipes/models/small/config.json": "{}",
            "recipes/models/other/config.json": "{}",
            "recipes/configs/three.yaml": "# recipes/three.py and recipes/configs/other.yaml\n"
            "topics: [recipes/configs/data/one.yaml]\n",
            "recipes/configs/data/one.yaml": "label_map: recipes/configs/data/map.yaml\n",
            "recipes/configs/data/map.yaml": "a: b\n",
        },
    )
    copied = {path.as_posix() for path in copy_recipe(project, "three", tmp_path / "copy")}
    found = {name for name in copied if "/models/" in name or "/configs/" in name}
    expected = ["models/small/config.json", "configs/three.yaml", "configs/accelerate/one_cpu.yaml"]
    expected += ["configs/data/one.yaml", "configs/data/map.yaml"]
    assert found == {f"{tmp_path}/copy/recipes/{name}" for name in expected}
