"""The web page of a tagger (Gradio): a text, or a file, in; labels and scores out.

Everything that the page needs comes from its own server. Errors are one line on the page.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.serving.markup import (
    STYLE,
    about_html,
    error_html,
    progress_html,
    reasons_html,
    tags_html,
)
from shared.taggers.folder import MANIFEST

if TYPE_CHECKING:
    from fastapi import FastAPI

    from shared.taggers.explanations import Explainer
    from shared.taggers.tagger import Tagger

NEUTRAL_EXAMPLE = "The second chapter of the manual explains how to change the settings."
FONTS = ("system-ui", "sans-serif")
MONOSPACED_FONTS = ("ui-monospace", "monospace")
# Those of the theme have too little contrast to be read by everybody.
COLOURS = {
    "block_info_text_color": "*neutral_600",
    "block_info_text_color_dark": "*neutral_300",
    "input_placeholder_color": "*neutral_600",
    "input_placeholder_color_dark": "*neutral_300",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
}
TEXT_COLUMNS = "Text columns"  # a field of the page
KEPT_SECONDS = 3600  # uploads and tagged files are deleted after an hour
_METHODS = {
    "words": "a classifier of words",
    "embeddings": "a classifier of sentence embeddings",
    "trained_model": "a fine-tuned model",
    "onnx": "an exported model",
    "zero_shot": "a zero-shot classifier",
    "language_model": "a prompted language model",
    "mean": "a mean of taggers",
}


@dataclass(frozen=True)
class FileState:
    """How far the tagging of a file is.

    Attributes
    ----------
    n_done, n_rows : int
        Rows that are tagged, and all.
    path : Path, optional
        The tagged file, when it is complete.
    """

    n_done: int
    n_rows: int
    path: Path | None = None


@dataclass(frozen=True)
class PageLimits:
    """What the page takes.

    Attributes
    ----------
    max_characters : int
        Characters of a text.
    max_megabytes : int
        Megabytes (10^6 bytes) of a file.
    """

    max_characters: int = 50_000
    max_megabytes: int = 10


def describe_tagger(folder: str, tagger: Tagger) -> str:
    """Return a line about a tagger: its folder, its method, its labels and its metrics.

    Parameters
    ----------
    folder : str
        Its ``metrics.json`` has the metrics, if the folder holds one.
    tagger : Tagger
    """
    method, metrics = "a model of transformers", {}
    path = Path(folder).expanduser()
    if (path / MANIFEST).is_file():
        method = json.loads((path / MANIFEST).read_text("utf-8"))["method"]
        method = _METHODS.get(method, method)
    if (path / "metrics.json").is_file():
        metrics = json.loads((path / "metrics.json").read_text("utf-8"))
    line = f"{folder}: {method}, {len(tagger.label_names):,} labels"
    # Of a cross-validation of documents, those out of fold.
    part = "test" if "test_micro_f1" in metrics else "oof"
    values = []
    for name in ("micro", "macro"):
        key = f"{part}_{name}_f1"
        if key in metrics:
            values.append(f"{name} F1 {metrics[key]:.3f}")
        if f"{key}_low" in metrics:
            low, high = metrics[f"{key}_low"], metrics[f"{key}_high"]
            values[-1] += f" (95 % interval {low:.3f} to {high:.3f})"
    if values:
        line += f"; {', '.join(values)}"
    if "test_samples" in metrics:
        line += f" on {metrics['test_samples']:,} test texts"
    return line


@dataclass(frozen=True)
class PageActions:
    """What the buttons of the page do: each returns HTML, also for a mistake.

    Attributes
    ----------
    tagger : Tagger
    tag_file : callable
        Maps a file, and the names of its text columns (empty: the default), to states; the last one
        has the tagged file. It may raise a `UserError`.
    lock : context manager
        Held while the labels or the reasons of a text are computed; `tag_file` holds it for each
        block of rows.
    n_scores : int, optional
        As in `Tagger.tag`.
    explainer : Explainer
        Of the tagger; what it cannot say is left out.
    limits : PageLimits
    """

    tagger: Tagger
    tag_file: Callable[[Path, list[str]], Iterator[FileState]]
    lock: AbstractContextManager
    explainer: Explainer
    n_scores: int | None = None
    limits: PageLimits = PageLimits()

    def on_text(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield the labels of a text, then also the reasons for them, as HTML."""
        if not text.strip():
            yield error_html("The text is empty: type or paste one."), ""
            return
        if len(text) > self.limits.max_characters:
            length = f"{len(text):,} characters, more than {self.limits.max_characters:,}"
            yield error_html(f"The text has {length}: shorten it."), ""
            return
        with self.lock:
            (record,) = self.tagger.tag([text], self.n_scores)
        tags = tags_html(record, self.tagger)
        yield tags, progress_html("Looking for the reasons ...")  # the slower part
        with self.lock:
            (explanation,) = self.explainer([text], [record["labels"]])
        yield tags, reasons_html(explanation)

    def on_file(self, path: str | None, text_columns: str) -> Iterator[tuple[str, str | None]]:
        """Yield how far the tagging of a file is, as HTML, and in the end the tagged file.

        `text_columns` has names separated by commas.
        """
        if path is None:
            yield error_html("No file: choose one first."), None
            return
        yield progress_html("Checking all rows ..."), None
        names = [name.strip() for name in text_columns.split(",") if name.strip()]
        try:
            for state in self.tag_file(Path(path), names):
                line = f"{state.n_done:,} of {state.n_rows:,} rows are tagged."
                if state.path is None:
                    yield progress_html(line, state.n_done / state.n_rows), None
                else:
                    yield progress_html(line), str(state.path)
        except UserError as error:
            # A visitor knows the name of the file and the fields of the page: no path, no flags.
            line = str(error).replace(f"{Path(path).parent}{os.sep}", "")
            line = line.removeprefix("--output ").replace("--text_columns", f'"{TEXT_COLUMNS}"')
            yield error_html(line), None


def make_page(
    actions: PageActions,
    *,
    title: str,
    about: Sequence[str],
    examples: Sequence[str] = (),
    folder: str,
) -> FastAPI:
    """Return the application that serves the page of a tagger.

    Parameters
    ----------
    actions : PageActions
    title : str
        Of the window.
    about : sequence of str
        A line about each tagger that was loaded.
    examples : sequence of str
        Texts to try; none: a neutral sentence.
    folder : str
        Of uploads and tagged files.
    """
    # Gradio reads them when it is imported, or when a component is made.
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder}
    import gradio
    from fastapi import FastAPI

    limits = actions.limits

    def on_file(path: str | None, text_columns: str) -> Iterator[tuple[str, Any]]:
        for line, output in actions.on_file(path, text_columns):
            yield line, gradio.File(output, visible=output is not None)

    waiting = progress_html("The labels of the text will be listed in this place.")
    with gradio.Blocks(
        title=title, analytics_enabled=False, delete_cache=(KEPT_SECONDS // 6, KEPT_SECONDS)
    ) as page:
        gradio.HTML(about_html(about))
        with gradio.Tab("A text"), gradio.Row():
            outputs = [gradio.HTML(waiting, render=False), gradio.HTML(render=False)]
            with gradio.Column(min_width=320):
                text = gradio.Textbox(
                    label="Text",
                    lines=6,
                    max_lines=20,
                    placeholder=f"Type or paste up to {limits.max_characters:,} characters.",
                )
                call: dict[str, Any] = {"fn": actions.on_text, "inputs": text, "outputs": outputs}
                call |= {"api_visibility": "private"}  # programs have an interface of their own
                button = gradio.Button("Tag the text", variant="primary")
                button.click(**call)
                text.submit(**call)  # Shift and Enter
                gradio.Examples(
                    [[example] for example in examples or [NEUTRAL_EXAMPLE]],
                    **call,
                    run_on_click=True,
                    cache_examples=False,
                )
            with gradio.Column(min_width=320):
                for output in outputs:
                    output.render()
        with gradio.Tab("A file"), gradio.Row():
            with gradio.Column(min_width=320):
                upload = gradio.File(
                    label=f"CSV, TSV, JSON lines or Parquet, up to {limits.max_megabytes:,} MB",
                    height=160,
                )
                columns = gradio.Textbox(
                    label=TEXT_COLUMNS,
                    info="Separated by commas. Empty: title and body, or text.",
                    max_lines=1,
                )
                button = gradio.Button("Tag the file", variant="primary")
            with gradio.Column(min_width=320):
                state = gradio.HTML()
                tagged = gradio.File(label="Tagged file", interactive=False, visible=False)
            button.click(
                on_file,
                [upload, columns],
                [state, tagged],
                show_progress="hidden",  # the state has a bar of its own
                api_visibility="private",
            )
    page.queue(max_size=100)
    theme = gradio.themes.Base(font=FONTS, font_mono=MONOSPACED_FONTS).set(**COLOURS)
    return gradio.mount_gradio_app(
        FastAPI(openapi_url=None),
        page,
        path="/",
        theme=theme,
        css=STYLE,
        max_file_size=limits.max_megabytes * 10**6,
        show_error=False,  # an unexpected error: its text is for the log
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
    )
