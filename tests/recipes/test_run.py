"""run.sh from its command line, and the project that it makes of one recipe.

Nothing is installed: an interpreter of our own making answers for Python, pip and venv, and hands
everything else to the interpreter that runs the tests.
"""

import ast
import os
import shutil
import signal
import subprocess

import pytest
from command_line import PYTHON, ROOT, run
from forks import INTERPRETER, forking, run_script

from shared.project import copy_recipe

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.py"))
FAKE_PYTHON = f"""#!/bin/bash
log() {{ echo "$*" >>"$FAKE_LOG"; }}
case "$*" in
  *sys.version_info*) exit "${{FAKE_OLD:-0}}" ;;
  "-c import venv"*) exit "${{FAKE_NO_VENV:-0}}" ;;
  "-m venv "*)
    log venv
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python" ;;
  "-m pip --version"*) exit 0 ;;
  "-m pip install"*" pip=="*) log upgrade ;;
  "-m pip install"*)
    log pip
    [ -z "$FAKE_BROKEN_PIP" ] || {{ echo "ERROR: No matching distribution"; exit 1; }} ;;
  "-m compileall "*)
    log compileall
    [ -z "$FAKE_CTRL_C" ] || {{ kill -INT $PPID; exit 1; }} ;;
  --version) echo Python 3.11.0 ;;
  *) exec {INTERPRETER} "$@" ;;
esac
"""


INSTALLATION = ["upgrade", "pip", "compileall"]  # as FAKE_PYTHON logs it


def executable(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def copy_compiled(folder):
    """Copy what Python and numba have compiled, which is valid for a file of the same time."""
    for path in (ROOT / "shared").rglob("__pycache__/*"):
        target = folder / path.relative_to(ROOT)
        if target.parent.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            shutil.copy2(path, target)


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_issues):
    """This project in a folder whose name has a space, without its environment; a tiny sample."""
    folder = tmp_path_factory.mktemp("projects") / "my project"
    folder.mkdir()
    for name in ("run.sh", "setup.cfg", "pyproject.toml", "constraints.txt", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copy(ROOT / ".gitignore", folder)
    ignore = shutil.ignore_patterns("__pycache__")
    for part in ("shared", "recipes", "tests/benchmarks"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignore)
    copy_compiled(folder)
    shutil.rmtree(folder / "recipes" / "data")
    (folder / "recipes" / "data").mkdir()
    shutil.copy(tiny_issues, folder / "recipes" / "data" / "issues.jsonl")
    (folder / "recipes" / "data" / "README.md").write_text("Tiny issues.\n")
    return folder


class RunSh:
    """``./run.sh`` of a project with an interpreter that installs nothing, run from elsewhere."""

    def __init__(self, project, tmp_path):
        self.project = project
        self.elsewhere = tmp_path / "some where else"
        self.elsewhere.mkdir()
        self.log = tmp_path / "installations"
        self.python = executable(tmp_path / "fake bin" / "python3", FAKE_PYTHON)
        self.venv = project / ".venv"
        self.file, self.variables = forking()
        shutil.rmtree(self.venv, ignore_errors=True)

    def environment(self, **changes):
        """The variables to run under."""
        ours = {"PYTHON": self.python, "FAKE_LOG": self.log, "PYTHONPATH": self.project}
        ours |= self.variables | changes
        return os.environ | {name: str(value) for name, value in ours.items()}

    def __call__(self, *words, **environment):
        return run(
            *("bash", self.project / "run.sh", *words),
            check=False,
            cwd=self.elsewhere,
            pass_fds=[self.file],
            **self.environment(**environment),
        )

    def installations(self):
        """What was called to install, oldest first."""
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def run_sh(project, tmp_path):
    return RunSh(project, tmp_path)


def last_line(process):
    return process.stderr.strip().splitlines()[-1]


# --- what there is -------------------------------------------------------------------------------


def test_help_lists_the_recipes_with_their_purpose(run_sh):
    process = run_sh("--help")
    assert process.returncode == 0
    listed = process.stdout.split("recipes:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in listed] == RECIPES
    for name, line in zip(RECIPES, listed, strict=True):
        source = (ROOT / "recipes" / f"{name}.py").read_text(encoding="utf-8")
        purpose = ast.get_docstring(ast.parse(source)).splitlines()[0]
        assert line.split(maxsplit=1)[1] == purpose
    for command in ("./run.sh test", "./run.sh copy NAME FOLDER", "PYTHON", "ACCELERATE_CONFIG"):
        assert command in process.stdout
    assert run_sh.installations() == []


def test_an_unknown_recipe_is_exit_code_2(run_sh):
    process = run_sh("github_tager")
    assert process.returncode == 2
    assert last_line(process) == "error: there is no recipe 'github_tager'"
    assert "github_tagger" in process.stderr
    assert run_sh.installations() == []


# --- the installation ----------------------------------------------------------------------------


def test_a_second_call_installs_nothing_and_changed_pins_do(run_sh):
    assert run_sh("setup").returncode == 0
    assert run_sh.installations() == ["venv", *INSTALLATION]
    assert run_sh("setup").stderr == ""
    assert run_sh.installations() == ["venv", *INSTALLATION]

    pins = run_sh.project / "constraints.txt"
    before = pins.read_text()
    pins.write_text(before + "# another pin\n")
    assert run_sh("setup").returncode == 0
    assert run_sh.installations() == ["venv", *INSTALLATION, *INSTALLATION]
    pins.write_text(before)


def test_a_failed_installation_is_repaired_by_the_next_call(run_sh):
    process = run_sh("setup", FAKE_BROKEN_PIP=1)
    assert process.returncode == 2
    assert "ERROR: No matching distribution" in process.stderr
    assert last_line(process).startswith("error: the installation failed; the whole log is ")
    assert "ERROR" in (run_sh.venv / "install.log").read_text()
    assert run_sh("setup").returncode == 0
    assert run_sh.installations() == ["venv", *INSTALLATION[:2], "venv", *INSTALLATION]
    assert not os.path.lexists(run_sh.project / ".venv.lock")


@pytest.fixture
def ctrl_c():
    """Let processes take Ctrl-C also where the tests are a job in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_packages_are_compiled_ends_an_installation(run_sh):
    assert run_sh("setup", FAKE_CTRL_C=1).returncode == 130
    assert not os.path.lexists(run_sh.project / ".venv.lock")
    assert run_sh("setup").returncode == 0
    assert run_sh.installations() == 2 * ["venv", *INSTALLATION]


def test_a_half_made_environment_and_the_lock_of_the_dead_are_replaced(run_sh):
    (run_sh.venv / "bin").mkdir(parents=True)
    (run_sh.venv / "bin" / "python").symlink_to("nowhere")
    dead = subprocess.Popen(["true"])
    dead.wait()
    (run_sh.project / ".venv.lock").symlink_to(str(dead.pid))
    process = run_sh("setup")
    assert process.returncode == 0, process.stderr
    assert run_sh.installations() == ["venv", *INSTALLATION]
    assert not os.path.lexists(run_sh.project / ".venv.lock")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"PYTHON": "/no/such/python"},
            "error: PYTHON=/no/such/python is not a Python 3.10 to 3.13",
        ),
        ({"FAKE_OLD": 1}, "is not a Python 3.10 to 3.13"),
        ({"FAKE_NO_VENV": 1}, "has no venv module; install it"),
    ],
)
def test_what_is_missing_is_said_in_one_line(environment, expected, run_sh):
    process = run_sh("setup", **environment)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert expected in process.stderr
    assert run_sh.installations() == []


def test_too_little_space_is_said_before_anything_is_installed(run_sh, tmp_path):
    columns = "Filesystem 1024-blocks Used Available Capacity Mounted"
    df = f"#!/bin/sh\necho {columns}\necho /dev/x 9999999 8900000 1099999 90% /\n"
    executable(tmp_path / "df bin" / "df", df)
    process = run_sh("setup", PATH=f"{tmp_path / 'df bin'}:{os.environ['PATH']}")
    assert process.returncode == 2
    assert "has 1 GB free; the installation needs 4 GB" in process.stderr
    assert run_sh.installations() == []


# --- launching -----------------------------------------------------------------------------------


def test_a_recipe_runs_from_any_folder_and_its_exit_code_comes_back(run_sh):
    process = run_sh("naive_bayes", "--data", "nowhere.jsonl")
    assert process.returncode == 2
    assert last_line(process) == "error: nowhere.jsonl: no such file"
    assert "Traceback" not in process.stderr
    # Paths are those of the folder one is in.
    assert (run_sh.elsewhere / "outputs" / "naive_bayes").is_dir()


def test_a_termination_reaches_the_recipe_which_saves_a_checkpoint(run_sh, tagger_flags, tmp_path):
    words = [*tagger_flags, "--output_dir", tmp_path / "out", "--patience", 2000]
    process = subprocess.Popen(
        [
            *("bash", run_sh.project / "run.sh", "github_tagger", *map(str, words)),
            *("--num_train_epochs", "2000"),
        ],
        env=run_sh.environment(),
        pass_fds=[run_sh.file],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if "epoch" in line:
            process.terminate()  # the script alone, as a service manager does
            break
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "stopped by SIGTERM after step" in stderr
    assert list((tmp_path / "out").glob("checkpoint-*"))


def test_an_accelerate_config_that_is_not_there_is_named(run_sh):
    process = run_sh("github_tagger", ACCELERATE_CONFIG="nowhere.yaml")
    assert process.returncode == 2
    assert last_line(process) == "error: ACCELERATE_CONFIG=nowhere.yaml: no such file"


# --- a project of one recipe ---------------------------------------------------------------------


# Recipes whose copies have between them every module that a recipe imports.
# tests/shared/test_project.py looks up the imports of the copies of all recipes.
COPIED = (
    *("annotate", "best", "demo", "explore", "export", "fetch_issues", "few_label_benchmark"),
    *("gan", "github_tagger", "images", "label_next", "language_model", "llm_labels", "multi_task"),
    *("search", "seq2seq", "series", "serve", "span_qa", "tabular", "tag", "techniques"),
    "train_nli",
)


@pytest.fixture(scope="module")
def copies(project, tmp_path_factory):
    """A project made of each recipe of `COPIED`, away from this one; one by ``./run.sh copy``."""
    folder = tmp_path_factory.mktemp("copies")
    process = RunSh(project, folder)("copy", "github_tagger", folder / "my github_tagger")
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("\n") == 1
    for name in COPIED:
        if name != "github_tagger":
            copy_recipe(project, name, folder / f"my {name}")
        copy_compiled(folder / f"my {name}")
    return {name: folder / f"my {name}" for name in COPIED}


@pytest.fixture
def copy(copies):
    return copies["github_tagger"]


def run_copy(copy, *words, **options):
    return run(*words, cwd=copy, PYTHONPATH=str(copy), **options)


def test_the_copy_holds_what_the_recipe_imports_and_nothing_of_this_project(copy):
    process = run_copy(copy, PYTHON, "-c", "import shared; print(*shared.__path__)")
    assert process.stdout.strip() == str(copy / "shared")
    names = sorted(path.name for path in copy.glob("recipes/*.py"))
    assert names == ["github_tagger.py", "tag.py"]
    assert not (copy / "shared" / "project.py").exists()
    for path in copy.rglob("*"):
        if path.is_file() and path.parent.name != "__pycache__":
            assert str(ROOT) not in path.read_text(encoding="utf-8")


# What the interpreter finds: every import statement of a copy is carried out in the copy.
IMPORT_ALL = """
import ast, importlib, pathlib, sys
for path in [*pathlib.Path("shared").rglob("*.py"), *pathlib.Path("recipes").glob("*.py")]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "shared":
            module = importlib.import_module(node.module)
            for alias in node.names:
                try:
                    getattr(module, alias.name)
                except AttributeError:
                    importlib.import_module(f"{node.module}.{alias.name}")
for path in pathlib.Path("shared").glob("*/__init__.py"):
    room = importlib.import_module(f"shared.{path.parent.name}")
    for name in room.__all__:
        getattr(room, name)
assert pathlib.Path(sys.modules["shared"].__file__).parent == pathlib.Path("shared").resolve()
"""


def test_the_copies_have_every_module_that_a_recipe_imports(copies):
    folders = (folder / "shared" for folder in (ROOT, *copies.values()))
    modules, *copied = ({path.relative_to(f) for path in f.rglob("*.py")} for f in folders)
    missing = {path.as_posix() for path in modules.difference(*copied)}
    assert missing == {"evaluation/evaluate_modules.py", "project.py"}


@pytest.mark.parametrize("name", COPIED)
def test_every_import_of_a_copy_works(name, copies):
    run_script("-c", IMPORT_ALL, cwd=copies[name])


@pytest.mark.parametrize(
    ("name", "chosen", "n_tests"),
    [
        # A start of a recipe takes seconds; the one for --help is left out where another follows.
        ("few_label_benchmark", "test", 1),
        ("github_tagger", "test", 2),
        ("tag", "test", 1),
    ],
)
def test_a_copy_passes_its_own_tests(name, chosen, n_tests, copies):
    # What `./run.sh test` does once it has set the copy up.
    python = (copies[name], PYTHON, "-m")
    run_copy(*python, "ruff", "check", "--no-cache", ".")
    run_copy(*python, "ruff", "format", "--check", "--no-cache", ".")
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen)
    process = run_script(*words, cwd=copies[name])
    assert f"{n_tests} passed" in process.stdout


def test_a_copy_of_what_launches_other_recipes_holds_them(copies):
    copy = copies["few_label_benchmark"]
    names = {path.stem for path in copy.glob("recipes/*.py")}
    assert names >= {"few_label_benchmark", "naive_bayes", "embedding_lookup", "github_tagger"}
    assert "tag" in names  # each of them leaves a tagger
    assert "best" not in names
    assert (copy / "tests" / "benchmarks" / "setfit_peer.py").is_file()
    assert (copy / "shared" / "methods" / "neighbours.py").is_file()  # one of those imports it


def test_the_launcher_of_the_copy_knows_its_recipes_only(copy):
    process = run_copy(copy, "bash", "run.sh", "--help")
    assert process.stdout.count("\n  github_tagger ") == 1
    assert process.stdout.count("\n  tag ") == 1
    assert "  naive_bayes " not in process.stdout
    assert "./run.sh copy" not in process.stdout
    assert "my-github-tagger" in (copy / "setup.cfg").read_text()


def test_a_copy_needs_an_empty_folder_and_a_recipe(run_sh, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    process = run_sh("copy", "github_tagger", tmp_path / "mine")
    assert process.returncode == 2
    assert last_line(process) == (
        f"error: copy: {tmp_path / 'mine'} is not an empty folder; choose another"
    )
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    process = run_sh("copy", "tagger", tmp_path / "new")
    assert process.returncode == 2
    assert last_line(process) == (
        f"error: copy: there is no recipe 'tagger'; the recipes are {', '.join(RECIPES)}"
    )
    process = run_sh("copy", "github_tagger")
    assert process.returncode == 2
    assert last_line(process) == "error: usage: ./run.sh copy NAME FOLDER"


def test_help_says_how_to_do_without_bash(run_sh, copy):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    powershell = readme.split("```powershell\n")[1].split("```")[0].splitlines()
    assert len(powershell) == 3
    help_of_copy = run_copy(copy, "bash", "run.sh", "--help").stdout
    tagger = r".venv\Scripts\accelerate launch recipes\github_tagger.py"
    of_copy = [*powershell[:2], rf"{tagger} --config recipes\configs\sample.yaml"]
    for text, lines in ((run_sh("--help").stdout, powershell), (help_of_copy, of_copy)):
        assert ".venv/bin/accelerate launch recipes/NAME.py" in text
        for system in ("macOS", "Windows", "WSL"):
            assert system in text
        # Each runs its first recipe on the sample.
        assert [line.strip() for line in text.splitlines()[-3:]] == lines
        assert "./run.sh setup " in text
    # A recipe without a config for the sample.
    for line in run_copy(copy.parent / "my tag", "bash", "run.sh", "--help").stdout.splitlines():
        if "Scripts\\accelerate" in line:
            assert line.strip() == r".venv\Scripts\accelerate launch recipes\tag.py"
            break
    else:
        pytest.fail("no line for PowerShell")
