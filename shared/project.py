"""Make a working project of one recipe: ``./run.sh copy NAME FOLDER``.

The copy holds the script, the scripts that it launches or tells a user to launch, `recipes/tag.py`
if it makes a tagger, the modules of `shared` that these import, its configs, the sample, a
launcher, the pins, a smoke test and a README. It holds nothing else, and nothing in it refers to
this project or to other recipes. A recipe that only applies taggers gets the scorers of all
methods; they are imported by name.
"""

import ast
import re
import shlex
import shutil
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

from shared.cli.errors import UserError, exit_on_user_error

_README = """# {name}

{purpose}

```bash
./run.sh                # set up, then run on the sample
./run.sh {name} --data my_texts.jsonl
./run.sh {name} --help
./run.sh test           # style, types, and that it runs
```

`--data` takes JSON lines, a JSON array, CSV, TSV (each also `.gz`), Parquet, or the id of a data
set on the Hugging Face hub. One row is one text, in the column `text`, or `title` and `body`, with
its labels in the column `labels`; `--text_columns` and `--label_column` name others.

`recipes/{name}.py` is the method, from top to bottom; change it. `shared/` holds the parts that it
uses, `recipes/configs/` its settings, `recipes/data/` the sample.
"""
_TAGGER_README = """
The run ends in a tagger, which gives other texts labels:

```bash
./run.sh tag --model {output_dir} --data new_texts.jsonl --output tagged.jsonl
```

```python
from shared.taggers import load_tagger

tagger = load_tagger("{output_dir}")
tagger("a text")  # {{"labels": [...], "scores": {{...}}}}
```
"""

_SMOKE_TEST = '''"""The recipe runs from its command line."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run(*flags):
    script = ROOT / "recipes" / "{name}.py"
    return subprocess.run([sys.executable, script, *flags], check=True, timeout=600, text=True)


def test_it_explains_itself():
    run("--help")
'''
_FIGURES_SMOKE_TEST = """

def test_it_ends_in_figures(tmp_path):
    run(
        *("--output_dir", tmp_path / "out", "--cache_dir", tmp_path / "cache"),{training_flags}
    )
    assert '"test_micro_f1"' in (tmp_path / "out" / "metrics.json").read_text(encoding="utf-8")
"""
_A_FEW_STEPS = """
        *("--max_steps", "2", "--max_length", "32", "--use_cpu"),"""


def copy_recipe(root: Path, name: str, folder: Path) -> list[Path]:
    """Copy recipe `name` of the project at `root` to `folder`; return the files written.

    Raises
    ------
    UserError
        If there is no such recipe, or the folder is not empty.
    """
    script = root / "recipes" / f"{name}.py"
    if not script.is_file():
        names = sorted(path.stem for path in script.parent.glob("*.py"))
        raise UserError(f"copy: there is no recipe {name!r}; the recipes are {', '.join(names)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"copy: {folder} is not an empty folder; choose another")

    configs = root / "recipes" / "configs"
    own_modules = imported_modules(root, script)
    launched = launched_scripts(root, script)
    tag, tagger = root / "recipes" / "tag.py", root / "shared" / "taggers" / "tagger.py"
    # They make no tagger of their own.
    appliers = {tag, *(root / "recipes" / f"{other}.py" for other in ("demo", "export", "serve"))}
    makers = [
        path
        for path in (script, *launched)
        if path not in appliers and tagger in imported_modules(root, path)
    ]
    if makers:
        launched = sorted({*launched, tag})
    # run.sh starts the recipe with a module of `shared`.
    further = [root / path for path in re.findall(r"shared/cli/\w+\.py", _read(root / "run.sh"))]
    if script in appliers:
        further += scorer_modules(tagger.parent)
    others = [*launched, *further]
    modules = {*own_modules, *further}.union(*(imported_modules(root, other) for other in others))
    scripts = [script, *launched]
    own_configs = [
        path for path in sorted(configs.glob("*.yaml")) if f"recipes/{name}.py" in _read(path)
    ]
    models = [
        model
        for model in sorted((root / "recipes" / "models").glob("*"))
        if any(f'"{model.name}"' in _read(path) for path in scripts)
    ]
    samples = [
        sample
        for sample in sorted((root / "recipes" / "data").glob("*.jsonl"))
        if any(f'"{sample.name}"' in _read(path) for path in (*scripts, *modules))
    ]
    files = [
        script,
        *launched,
        *sorted(modules),
        *named_files(modules),
        *own_configs,
        *mentioned_configs(root, own_configs),
        *(path for model in models for path in sorted(model.iterdir())),
        *sorted((configs / "accelerate").glob("*.yaml")),
        *(samples and [*samples, root / "recipes" / "data" / "README.md"]),
        *(root / part for part in ("run.sh", "setup.cfg", "pyproject.toml", "constraints.txt")),
        *(root / part for part in ("LICENSE", ".gitignore")),
    ]
    for source in files:
        target = folder / source.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        # copy2 keeps the times, by which numba recognises the kernels that it has compiled.
        shutil.copy2(source, target)
    for package in {path.parent for path in modules}:
        kept = {path.stem for path in modules if path.parent == package}
        _keep_exports(folder / package.relative_to(root) / "__init__.py", kept)

    for source in (*scripts, *modules):
        _drop_mentions(folder / source.relative_to(root), {path.name for path in scripts})
    readme = ""
    if makers:
        flag = re.search(r'output_dir: str = flag\(\s*"(\S+)"', _read(makers[0]))
        tagger_dir = flag[1] if flag else f"outputs/{makers[0].stem}"
        _replace(folder / "recipes" / "tag.py", r"outputs/github_tagger", tagger_dir, count=0)
        # A recipe that leaves its tagger in the output folder itself.
        if "tag_unlabelled(output_dir, " in _read(script):
            readme = _TAGGER_README.format(output_dir=tagger_dir)

    main = name
    for config in sorted(configs.glob("*sample.yaml")):
        if config in files:
            main = f"{name} --config {config.relative_to(root)}"
    _replace(folder / "run.sh", r"(?m)^main_recipe=.*$", f"main_recipe=({main})")
    project = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or name
    _replace(folder / "setup.cfg", r"(?m)^name = .*$", f"name = {project}")
    purpose = (ast.get_docstring(ast.parse(_read(script))) or name).splitlines()[0]
    _replace(folder / "setup.cfg", r"(?m)^description = .*$", f"description = {purpose}")
    smoke_test = _SMOKE_TEST.format(name=name)
    if root / "shared" / "reports" / "results.py" in own_modules:  # it writes test metrics
        trains = "TrainingArguments" in _read(script)
        smoke_test += _FIGURES_SMOKE_TEST.format(training_flags=_A_FEW_STEPS if trains else "")
    written = {
        folder / "README.md": _README.format(name=name, purpose=purpose) + readme,
        folder / "tests" / "test_smoke.py": smoke_test,
    }
    for path, text in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return sorted([folder / source.relative_to(root) for source in files] + list(written))


def named_files(modules: Iterable[Path]) -> list[Path]:
    """Return the files beside modules, such as templates, that these name in quotation marks."""
    return sorted(
        path
        for module in modules
        for path in module.parent.iterdir()
        if path.suffix != ".py" and path.is_file() and f'"{path.name}"' in _read(module)
    )


def mentioned_configs(root: Path, configs: list[Path]) -> list[Path]:
    """Return the other YAML files that configs name, directly or through one another."""
    mentioned: list[Path] = []
    queue = list(configs)
    while queue:
        settings = "\n".join(line.split("#")[0] for line in _read(queue.pop()).splitlines())
        for name in re.findall(r"recipes/configs/[\w/.-]+\.yaml", settings):
            path = root / name
            if path.is_file() and path not in mentioned:
                mentioned.append(path)
                queue.append(path)
    return mentioned


def imported_modules(root: Path, script: Path) -> list[Path]:
    """Return the files of `shared` that a script imports, directly or through one another.

    Imports inside functions count too: they put off the import of heavy libraries. A name that is
    imported from a package, as recipes do, stands for the module that the package takes it from.
    """
    modules: set[Path] = set()
    queue = [script]
    while queue:
        path = queue.pop()
        for module, names in _imports(_read(path), f"shared.{path.parent.name}"):
            for path in _module_files(root, module, names):
                if path not in modules:
                    modules.add(path)
                    queue.append(path)
    packages = {path.parent / "__init__.py" for path in modules}
    return sorted({root / "shared" / "__init__.py", *packages, *modules})


def _module_files(root: Path, module: str, names: Sequence[str]) -> Iterator[Path]:
    """Yield the files that an import of names from a module, or of the module, refers to."""
    path = root.joinpath(*module.split("."))
    if path.with_suffix(".py").is_file():
        yield path.with_suffix(".py")
    elif path.is_dir():
        homes = {name: home for home, exported in exports(path).items() for name in exported}
        for name in names:
            file = path / f"{homes.get(name, name)}.py"
            if file.is_file():
                yield file


def exports(package: Path) -> dict[str, list[str]]:
    """Return the names that a package offers, by module: the table in its ``__init__.py``."""
    table = _exports_table(package / "__init__.py")
    return {} if table is None else ast.literal_eval(table)


def _exports_table(path: Path) -> ast.Dict | None:
    for node in ast.walk(ast.parse(_read(path))):
        if isinstance(node, ast.keyword) and node.arg == "submod_attrs":
            assert isinstance(node.value, ast.Dict)
            return node.value
    return None


def _keep_exports(path: Path, modules: Container[str]) -> None:
    """Remove all modules but some from the docstring and the table of an ``__init__.py``."""
    if (table := _exports_table(path)) is None:
        return
    lines = _read(path).splitlines(keepends=True)
    # From the last entry to the first, so that the line numbers of the others stay right.
    for key, value in reversed([*zip(table.keys, table.values, strict=True)]):
        if key is not None and ast.literal_eval(key) not in modules:
            del lines[key.lineno - 1 : value.end_lineno]
    # The docstring has one line for each module: "- `name`: what it holds".
    entries = [re.match(r"- `(\w+)`: ", line) for line in lines]
    kept = [
        line
        for line, entry in zip(lines, entries, strict=True)
        if entry is None or entry[1] in modules
    ]
    path.write_text("".join(kept), encoding="utf-8")


def scorer_modules(package: Path) -> list[Path]:
    """Return the modules of a package that export a scorer, which taggers look up by name."""
    return [
        package / f"{module}.py"
        for module, names in exports(package).items()
        if any(name.endswith("Scorer") for name in names)
    ]


def launched_scripts(root: Path, script: Path) -> list[Path]:
    """Return the other scripts of the project that a script names in a command.

    It launches them, or tells the user to do so.
    """
    texts = [
        node.value
        for node in ast.walk(ast.parse(_read(script)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    first_words = {text.split()[0] for text in texts if text.split()}
    words = first_words.union(*(re.findall(r"accelerate launch (\S+)", text) for text in texts))
    paths = {root / word for word in words if word.endswith(".py")}
    return sorted(path for path in paths - {script} if path.is_file())


def _drop_mentions(path: Path, scripts: Container[str]) -> None:
    """Remove mentions of recipes that are not among `scripts`: "(recipes/NAME.py)"."""
    text = _read(path)

    def kept(mention: re.Match[str]) -> str:
        return mention[0] if mention[1] in scripts else ""

    without = re.sub(r"\s+\(recipes/(\w+\.py)\)", kept, text)
    if without != text:
        path.write_text(without, encoding="utf-8")


@cache  # a module is read for each of the scripts that import it
def _imports(source: str, room: str) -> list[tuple[str, list[str]]]:
    """Return the modules of `shared` that a source imports, and the names it takes from each.

    A relative import is of a module of the same `room`, such as ``shared.models``.
    """
    imports: list[tuple[str, list[str]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imports += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            module = f"{room}.{node.module}" if node.level else node.module
            imports.append((module, [alias.name for alias in node.names]))
    return [pair for pair in imports if pair[0].split(".")[0] == "shared"]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _replace(path: Path, pattern: str, text: str, count: int = 1) -> None:
    path.write_text(re.sub(pattern, lambda _: text, _read(path), count=count), encoding="utf-8")


def main() -> None:
    """Read the command line of ``./run.sh copy``."""
    if len(sys.argv) != 4:
        raise UserError("usage: ./run.sh copy NAME FOLDER")
    root, name, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    files = copy_recipe(root, name, folder)
    print(f"{len(files)} files in {folder}; next: cd {shlex.quote(str(folder))} && ./run.sh")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
