"""Pages that need no network: one file with its styles, its script and the library of its charts.

Charts are drawn by Vega-Lite, whose JavaScript comes with vl-convert-python and is part of a page.
Templates extend `page_base.html.j2` (as ``base``); `page.css` holds the styles and `page_parts.js`
what all scripts share. Texts and names of labels reach a page as escaped text or as JSON, never as
HTML.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shared.cli.files import atomic_write
from shared.data.corpus import cache_folder

_FOLDER = Path(__file__).parent
# Part of every page, beside the template and the script of its own.
_BASE, _STYLES, _SCRIPT = "page_base.html.j2", "page.css", "page_parts.js"


def render_page(template: str, script: str | None, cache_dir: str | None, **values: Any) -> str:
    """Return the HTML of a page.

    Parameters
    ----------
    template : str
        Name of a file of this folder that extends ``base``.
    script : str, optional
        Name of the file of the JavaScript that runs after `page_parts.js`. None: the page has no
        charts and needs no JavaScript.
    cache_dir : str, optional
        Of `shared.data.corpus.cache_folder`, which keeps the JavaScript of the charts.
    **values
        For the template: ``title``, ``evaluation`` (a line below it), ``data`` (JSON values that
        the script reads) and what the template names.
    """
    js = library = ""
    if script is not None:
        js = "\n".join((_FOLDER / name).read_text("utf-8") for name in (_SCRIPT, script))
        library = chart_library(cache_folder(cache_dir))
    return (
        _environment()
        .get_template(template)
        .render(
            base=_BASE,
            css=(_FOLDER / _STYLES).read_text("utf-8"),
            library=library,
            js=js,
            **values,
        )
    )


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    # In JSON, tojson escapes <, >, & and ', and json.dumps everything that is not ASCII.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment


def chart_library(folder: Path) -> str:
    """Return the JavaScript of Vega, Vega-Lite and Vega-Embed: 900 kB.

    To bundle it takes two seconds, so that a file in `folder` keeps it, if it can be written.
    """
    path = folder / f"charts_{version('vl-convert-python')}.js.zlib"
    with suppress(OSError, zlib.error):  # no file, or a damaged one
        return zlib.decompress(path.read_bytes()).decode()
    import vl_convert

    library = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # it has a default
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            file.write(zlib.compress(library.encode()))
    return library
