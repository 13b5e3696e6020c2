import ast
import configparser
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from forks import run_script

from shared.cli.errors import UserError
from shared.evaluation import DecisionRule
from shared.methods import fit_words, naive_bayes
from shared.project import copy_recipe, exports, imported_modules, launched_scripts
from shared.taggers import Tagger, WordScorer
from shared.taggers.loading import _SCORERS as SCORERS

ROOT = Path(__file__).parents[2]
# Modules of `shared` that a copy carries at most; github_tagger carried 40 in version 0.1. Recipes
# that classify carry the modules of their tagger.
MOST_MODULES = {
    "agreement": 51,
    "annotate": 52,
    "augmentation": 119,
    "best": 143,
    "co_training": 117,
    "demo": 94,
    "document_classification": 123,
    "domain_adaptation": 115,
    "embedding_lookup": 112,
    "explore": 72,
    "export": 90,
    "fetch_issues": 123,
    "few_label_benchmark": 152,
    "few_label_probe": 112,
    "gan": 117,
    "github_tagger": 115,
    "goemotions": 116,
    "images": 116,
    "imdb_cnn_rnn": 113,
    "label_next": 98,
    "language_model": 102,
    "llm_labels": 135,
    "lora": 91,
    "multi_task": 115,
    "naive_bayes": 112,
    "pet": 121,
    "prompts": 106,
    "search": 117,
    "self_training": 119,
    "seq2seq": 109,
    "series": 108,
    "serve": 89,
    "span_qa": 103,
    "tabular": 114,
    "tag": 92,
    "techniques": 72,
    "train_nli": 107,
    "train_tokenizer": 51,
    "uda": 124,
    "zero_shot": 103,
}
# The table of a package, from which recipes import names.
TABLE = '''"""The low room.

- `errors`: mistakes
- `files`: files

May import: nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "errors": ["UserError"],
        "files": [
            "write",
        ],
        "unused": ["nothing"],
    },
)
'''
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
            "recipes/one.py": '"""Does one: thing.\n\nMore."""\n'
            "from shared.high.a import x\nfrom shared.low import UserError\n",
            "recipes/two.py": '"""Two."""\nimport shared.f as f, shared.g\n',
            "recipes/configs/sample.yaml": "# accelerate launch recipes/one.py\n",
            "recipes/configs/other.yaml": "# accelerate launch recipes/two.py\n",
            "recipes/configs/accelerate/one_cpu.yaml": "a: 1\n",
            "recipes/data/issues.jsonl": "{}\n",
            "recipes/data/comments.jsonl": "{}\n",
            "recipes/data/README.md": "data\n",
            "recipes/data/make_sample.py": "",
            "shared/__init__.py": "",
            "shared/low/__init__.py": TABLE,
            "shared/low/errors.py": "class UserError(Exception): pass\n",
            "shared/low/files.py": "def write(): pass\n",
            "shared/low/unused.py": "def nothing(): pass\n",
            "shared/high/__init__.py": "",
            "shared/high/a.py": "from shared.high import b\n"
            "from shared.low.errors import UserError\nx = 1\n",
            "shared/high/b.py": "def f():\n    from shared.c import y\n    import shared.high._d\n",
            "shared/high/_d.py": "import numpy\n",
            "shared/high/unused.py": "from shared.high import a\n",
            "shared/c.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            '    from shared.e import z\ny = "issues.jsonl"\n',
            "shared/e.py": "z = 1\n",
            "shared/f.py": "",
            "shared/g.py": "",
            "shared/unused.py": "from shared.high import a\n",
            "run.sh": "#!/usr/bin/env bash\nmain_recipe=(two --x)\nrun ${main_recipe[@]}\n",
            "setup.cfg": "[metadata]\nname = recipes\ndescription = Many recipes\n",
            **dict.fromkeys(("pyproject.toml", "constraints.txt", "LICENSE", ".gitignore"), "x\n"),
            "tests/shared/high/test_a.py": "",
            "README.md": "of the project\n",
        },
    )


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- which modules -------------------------------------------------------------------------------


def relative(paths, folder):
    return [path.relative_to(folder / "shared").as_posix() for path in paths]


def test_follows_imports_of_every_form(project):
    actual = imported_modules(project, project / "recipes" / "one.py")
    assert relative(actual, project) == [
        *("__init__.py", "c.py", "e.py"),
        *("high/__init__.py", "high/_d.py", "high/a.py", "high/b.py"),
        *("low/__init__.py", "low/errors.py"),
    ]
    actual = imported_modules(project, project / "recipes" / "two.py")
    assert relative(actual, project) == ["__init__.py", "f.py", "g.py"]


def test_a_name_of_a_package_stands_for_the_module_that_has_it(project):
    script = project / "recipes" / "one.py"
    script.write_text('"""One."""\nfrom shared.low import write\n')
    actual = imported_modules(project, script)
    assert relative(actual, project) == ["__init__.py", "low/__init__.py", "low/files.py"]
    assert exports(project / "shared" / "low") == {
        "errors": ["UserError"],
        "files": ["write"],
        "unused": ["nothing"],
    }


def test_the_table_of_a_copied_package_names_what_was_copied(project, tmp_path):
    copy_recipe(project, "one", tmp_path / "copy")
    copied = (tmp_path / "copy" / "shared" / "low" / "__init__.py").read_text()
    assert exports(tmp_path / "copy" / "shared" / "low") == {"errors": ["UserError"]}
    start, end = TABLE.index('        "files"'), TABLE.index("    },")
    assert copied == (TABLE[:start] + TABLE[end:]).replace("- `files`: files\n", "")


# Most files are the same in all copies; each content is parsed once.
@cache
def defined_names(text):
    """Return the names that a module defines or imports at its top."""
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        else:
            names.add(getattr(node, "name", None))
    return names


@cache
def imports_of_shared(text):
    """Return the statements of a module that import names from modules of `shared`."""
    return [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module.startswith("shared.")
    ]


@pytest.fixture(scope="module")
def copy_of(tmp_path_factory):
    """Call with the name of a recipe of this project; return its copy and the files written."""

    @cache
    def copy(name):
        folder = tmp_path_factory.mktemp("copies") / "a copy"
        return folder, copy_recipe(ROOT, name, folder)

    return copy


@pytest.mark.parametrize("name", RECIPES)
def test_a_copy_has_every_name_that_it_imports(name, copy_of):
    folder, _ = copy_of(name)
    exported_names = cache(exports)
    for path in [*folder.rglob("shared/**/*.py"), *folder.rglob("recipes/*.py")]:
        for node in imports_of_shared(path.read_text(encoding="utf-8")):
            target = folder.joinpath(*node.module.split("."))
            table = exported_names(target) if target.is_dir() else {}
            homes = {exported: home for home, names in table.items() for exported in names}
            for alias in node.names:
                if target.is_dir() and alias.name not in homes:
                    assert (target / f"{alias.name}.py").is_file()
                else:
                    file = target / homes[alias.name] if target.is_dir() else target
                    text = file.with_suffix(".py").read_text(encoding="utf-8")
                    assert alias.name in defined_names(text)


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
        *("shared/__init__.py", "shared/c.py", "shared/e.py"),
        *(f"shared/high/{name}.py" for name in ("__init__", "_d", "a", "b")),
        *("shared/low/__init__.py", "shared/low/errors.py"),
        "recipes/one.py",
        "recipes/configs/sample.yaml",
        "recipes/configs/accelerate/one_cpu.yaml",
        "recipes/data/issues.jsonl",
        "recipes/data/README.md",
        *("run.sh", "setup.cfg", "pyproject.toml", "constraints.txt", "LICENSE", ".gitignore"),
        "README.md",
        "tests/test_smoke.py",
    }
    changed = {"run.sh", "setup.cfg", "README.md", "tests/test_smoke.py", "shared/low/__init__.py"}
    for name in files(folder) - changed:
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
def test_a_copy_of_a_real_recipe_is_complete(name, copy_of):
    folder, written = copy_of(name)
    assert f"main_recipe=({name}" in (folder / "run.sh").read_text()
    subprocess.run(["bash", "-n", folder / "run.sh"], check=True)
    assert not (folder / "recipes" / "pictures").exists()
    scripts = [path for path in written if path.suffix == ".py"]
    modules = [path for path in folder.rglob("shared/**/*.py") if path.name != "__init__.py"]
    assert len(modules) <= MOST_MODULES[name]
    for path in scripts:
        assert str(ROOT) not in path.read_text(encoding="utf-8")
    # No text names a recipe that the copy lacks.
    others = "|".join({*RECIPES} - {path.stem for path in (folder / "recipes").glob("*.py")})
    # These have a default of the project.
    outputs = "nothing" if name in ("demo", "export", "serve", "tag") else others
    for path in [*scripts, folder / "README.md", *folder.glob("recipes/data/README.md")]:
        text = path.read_text(encoding="utf-8")
        if path.name == "verdict.py":  # its advice depends on whether the recipe exists
            text = text.replace("`./run.sh best`", "")
        mention = rf"recipes/({others})\.py|run\.sh ({others})\b|outputs/({outputs})\b"
        assert not re.search(mention, text), path


def scorers_of_copy(name, folder):
    """Copy a recipe; return the methods whose scorers the copy has."""
    copied = {path.relative_to(folder).as_posix() for path in copy_recipe(ROOT, name, folder)}
    pairs = SCORERS.items()
    return {method for method, (module, _) in pairs if f"shared/taggers/{module}.py" in copied}


@pytest.mark.parametrize("name", ["demo", "export", "serve", "tag"])
def test_a_copy_that_applies_taggers_has_the_scorers_of_all_methods(name, tmp_path):
    assert scorers_of_copy(name, tmp_path / "copy") == {*SCORERS}


def test_a_copy_that_makes_a_tagger_has_the_scorer_of_its_method(tmp_path):
    assert scorers_of_copy("naive_bayes", tmp_path / "copy") == {"words"}


def test_a_copy_of_tag_applies_a_tagger(tmp_path):
    texts, labels = ["crash on start", "typo in the docs"], np.eye(2)
    scorer = WordScorer(fit_words(naive_bayes(), texts, labels))
    Tagger(["bug", "docs"], DecisionRule.of(0.5, 2), scorer).save(tmp_path / "tagger")
    write(tmp_path, {"new.csv": "text\na crash\n"})
    folder = tmp_path / "copy"
    copy_recipe(ROOT, "tag", folder)
    flags = ("--model", "../tagger", "--data", "../new.csv", "--output", "tagged.csv")
    run_script("recipes/tag.py", *flags, cwd=folder)
    assert (folder / "tagged.csv").read_text().splitlines()[1].startswith('"a crash","bug",')


def test_a_copy_that_makes_a_tagger_can_tag(tmp_path):
    copy_recipe(ROOT, "naive_bayes", tmp_path)
    tag = (tmp_path / "recipes" / "tag.py").read_text(encoding="utf-8")
    assert 'DEFAULT_TAGGER = "outputs/naive_bayes"' in tag
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert 'load_tagger("outputs/naive_bayes")' in readme
    assert "./run.sh tag --model outputs/naive_bayes" in readme


@pytest.mark.parametrize("name", ["lora", "train_nli"])
def test_a_copy_whose_output_folder_is_no_tagger_does_not_promise_one(name, tmp_path):
    copy_recipe(ROOT, name, tmp_path)
    assert "load_tagger(" not in (tmp_path / "README.md").read_text(encoding="utf-8")


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
    actual = {name for name in copied if "/models/" in name or "/configs/" in name}
    expected = ["models/small/config.json", "configs/three.yaml", "configs/accelerate/one_cpu.yaml"]
    expected += ["configs/data/one.yaml", "configs/data/map.yaml"]
    assert actual == {f"{tmp_path}/copy/recipes/{name}" for name in expected}


def test_a_copy_has_the_templates_that_its_modules_name(tmp_path):
    copy_recipe(ROOT, "naive_bayes", tmp_path / "copy")
    for name in ("page.html.j2", "page_base.html.j2", "page.css", "page.js", "page_parts.js"):
        assert (tmp_path / "copy" / "shared" / "reports" / name).is_file()
