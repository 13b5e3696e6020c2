"""The five steps of CONTRIBUTING.md make a new recipe: its own commands are executed."""

import configparser
import os
import re
import shutil
import subprocess

import pytest
import yaml
from command_line import PYTHON, ROOT, read_json, run
from forks import INTERPRETER, forking

NAME, PURPOSE = "my_method", "Classify texts by my method."
NEW = (f"recipes/{NAME}.py", f"tests/recipes/test_{NAME}.py")
# What the steps need, besides recipes/ and the tests named below.
FILES = ("run.sh", "setup.cfg", "pyproject.toml", "constraints.txt", "CONTRIBUTING.md")
TESTS = (
    "conftest.py",
    "forks.py",
    "pictures.py",
    *(f"recipes/{name}.py" for name in ("command_line", "conftest")),
)
TESTS += tuple(f"recipes/{name}.py" for name in ("test_configs", "test_naive_bayes"))
# Some tests of the copied file; what the others test is the same for the template.
SELECTED = "test_configs or mistakes or every_labelled"


def five_steps():
    """Return the commands of the five steps, as CONTRIBUTING.md has them."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    _, section = text.split("## Add a recipe in five steps\n")
    section = section.split("\n## ")[0]
    assert re.findall(r"(?m)^\*\*(\d)\. ", section) == ["1", "2", "3", "4", "5"]
    return "\n".join(re.findall(r"```bash\n(.*?)```", section, re.DOTALL))


def make_environment(folder):
    """Make an environment that ./run.sh takes for installed, and that runs this interpreter."""
    for name, command in {
        "python": f'exec {INTERPRETER} "$@"',
        # The new files in place of "."; the other files are those of this project.
        "ruff": f'exec "{PYTHON}" -m ruff ${{*%.}} {" ".join(NEW)}',
        "mypy": "exit 0",  # the steps change nothing in shared/, and it takes half a minute
    }.items():
        path = folder / ".venv" / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/bash\n{command}\n")
        path.chmod(0o755)
    fingerprint = re.search(r"(?m)^fingerprint\(\) \{\n(.*)\n\}", (ROOT / "run.sh").read_text())
    stamp = run("bash", "-c", f'root="{folder.resolve()}"\n{fingerprint[1]}').stdout
    (folder / ".venv" / "installed").write_text(stamp)


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_issues):
    """A copy of what the steps need, with a tiny sample, in which they were executed."""
    folder = tmp_path_factory.mktemp("contribution") / "project"
    # Python's caches are copied, too: they hold what numba has compiled.
    ignore = shutil.ignore_patterns("material", "models")
    for name in ("recipes", "shared"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    shutil.copy(tiny_issues, folder / "recipes" / "data" / "issues.jsonl")
    for name in (*FILES, *(f"tests/{name}" for name in TESTS)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    make_environment(folder)
    file, variables = forking()
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", five_steps()],
        cwd=folder,
        pass_fds=[file],
        env=os.environ
        | variables
        | {
            "PYTHONPATH": str(folder),
            "HF_DATASETS_CACHE": str(folder.parent / "cache"),
            "PYTEST_ADDOPTS": f"-p no:cacheprovider -k '{NAME} and ({SELECTED})'",
            "PYTEST_XDIST_AUTO_NUM_WORKERS": "0",
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return folder, process


def test_the_new_recipe_runs_from_its_command_line(project):
    folder, process = project
    assert f"Everything is in outputs/{NAME}:" in process.stdout
    metrics = read_json(folder / "outputs" / NAME / "metrics.json")
    assert metrics["test_micro_f1"] > 0.8  # each label has words of its own


def test_the_new_recipe_has_nothing_of_the_name_of_the_template(project):
    folder, _ = project
    text = (folder / "recipes" / f"{NAME}.py").read_text(encoding="utf-8")
    assert text.startswith(f'"""{PURPOSE}\n')
    assert "class MyMethodArguments" in text
    for path in (f"recipes/{NAME}.py", f"recipes/configs/{NAME}_sample.yaml"):
        text = (folder / path).read_text(encoding="utf-8")
        assert f"recipes/{NAME}.py --config recipes/configs/{NAME}_sample.yaml" in text
        assert not re.search(r"NaiveBayes|(recipes|configs|outputs)/naive_bayes", text)


def test_help_lists_the_new_recipe_with_its_purpose(project):
    _, process = project
    assert re.search(rf"(?m)^  {NAME} +{re.escape(PURPOSE)}$", process.stdout)


def test_style_and_tests_of_the_new_recipe_pass(project):
    _, process = project
    assert "All checks passed!" in process.stdout  # ruff check
    assert "2 files already formatted" in process.stdout
    assert f"tests/recipes/test_{NAME}.py ..." in process.stdout
    # Those of its config, its docstring and its row.
    assert "tests/recipes/test_configs.py ... " in process.stdout
    assert not re.search(r"\d (failed|error|skipped)", process.stdout)


def test_the_new_row_is_that_of_the_template(project):
    folder, _ = project
    lines = (folder / "recipes" / "README.md").read_text(encoding="utf-8").splitlines()
    (old,) = (number for number, line in enumerate(lines) if line.startswith("| [naive_bayes]"))
    assert lines[old + 1] == lines[old].replace("naive_bayes", NAME)
    assert not list(folder.rglob("*.bak"))


# --- other files that contributors rely on -------------------------------------------------------


def test_versions_agree():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    version = setup["metadata"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert str(citation["version"]) == version
    newest = re.findall(r"(?m)^## \[(\d[^\]]*)\] - (\S+)$", changelog)[0]
    assert newest == (version, str(citation["date-released"]))
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert hooks["repos"][0]["rev"] == f"v{re.search(r'(?m)^ruff==(.*)$', pins)[1]}"


@pytest.mark.parametrize("name", ["bug_report", "proposal"])
def test_a_form_for_issues_has_questions(name):
    path = ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml"
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    identifiers = [field["id"] for field in form["body"]]
    assert len({*identifiers}) == len(identifiers) >= 4
    assert all(field["attributes"]["label"] for field in form["body"])
