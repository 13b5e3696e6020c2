"""Show a tagger on a web page: a text, or a file, in; labels and scores out.

Why: to try a tagger, and to let others try it, without a line of code. The page shows the score of
each label beside its threshold, whether a label applies, and why: the words that weigh most for it.
With --data it has examples, and the labelled texts nearest to the text. It tags files as tag.py
does. Several taggers, also of different methods, are averaged.

    accelerate launch recipes/demo.py --model outputs/few_label_probe
    accelerate launch recipes/demo.py --model outputs/mine --data my_issues.jsonl --port 8080
    accelerate launch recipes/demo.py --model outputs/mine --abstain .8

It listens on this machine only (--host 0.0.0.0: on all networks; it knows no passwords, so put it
behind a proxy that does). The page loads nothing from other servers. Uploads and tagged files are
deleted after an hour, and when the page ends. Ctrl-C or SIGTERM end it, with exit code 0.

It needs gradio: pip install -e ".[demo]"

Expect for files the speed of tag.py, and for a short text its labels within a second, most of it
drawn by the browser; the words of a fine-tuned model take a second or two more. With --data, a
tagger with an encoder first embeds the labelled texts, once.
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from threading import Lock
from time import perf_counter

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    quiet_libraries,
)
from shared.data import (
    DataArguments,
    join_text,
    load_data,
    open_source,
    recognise_text_columns,
)
from shared.evaluation import scores_per_text
from shared.reports import DOUBT, TaggedFile, kept_columns
from shared.serving import (
    FileState,
    PageActions,
    PageLimits,
    address_of,
    bind,
    check_unpacked_size,
    describe_tagger,
    make_page,
    run_server,
    short_examples,
)
from shared.taggers import (
    Explainer,
    Tagger,
    TaggerArguments,
    load_taggers,
    mean_tagger,
    tagger_version,
)

DEFAULT_TAGGER = "outputs/github_tagger"
# Rows that are tagged at a time: after the first block, as many as take some seconds. Then the bar
# moves and a text waits for a block at most, and the blocks of a fast tagger are those of tag.py.
FIRST_BLOCK, LARGEST_BLOCK, SECONDS_PER_BLOCK = 64, 4096, 20

UNPACKED_FACTOR = 10  # a compressed file may hold so many times --max_megabytes


@dataclass
class DemoArguments(TaggerArguments, DataArguments):
    """The flags of this recipe."""

    model: list[str] = flag(
        [DEFAULT_TAGGER], f"Tagger folder, or several to average (default: {DEFAULT_TAGGER})."
    )
    data: str | None = flag(
        None, "Data for examples and nearest texts, as for training (default: none)."
    )
    host: str = flag("127.0.0.1", "Address to listen on (default: 127.0.0.1, this machine only).")
    port: int = flag(
        7860, "Port to listen on; 0: any free one (default: 7860).", least=0, most=65535
    )
    max_characters: int = flag(
        50_000, "Characters per text; longer ones are refused (default: 50000).", least=1
    )
    max_megabytes: int = flag(
        10,
        "Size of a file in megabytes; larger ones are refused, and compressed ones that hold more "
        "than 10 times as much (default: 10).",
        least=1,
    )
    max_nearest: int = flag(
        1000,
        "Labelled texts of --data that are searched for the nearest, the first ones; 0: none "
        "(default: 1000).",
        least=0,
    )


def main() -> None:
    """Load the taggers and the examples, listen, and serve the page until a signal."""
    args = parse_arguments(DemoArguments, description=__doc__)
    quiet_libraries()
    if args.world_size > 1:
        raise UserError("demo takes one process; start several pages, each with its --port")
    if find_spec("gradio") is None:
        raise UserError('demo needs gradio: pip install -e ".[demo]"')
    # Listen first: a port in use is seen before models are loaded. Browsers wait until then.
    listening = bind(args.host, args.port)
    taggers = load_taggers(args, DEFAULT_TAGGER)
    tagger = mean_tagger(taggers, names=args.model)
    n_scores = scores_per_text(len(tagger.label_names), args.top_scores)

    # Examples, and labelled texts of which the nearest are shown as reasons.
    examples, reference, nearest = [], None, None
    if args.data is not None:
        corpus = load_data(args, labels_required=False)
        examples = short_examples(corpus)
        if len(corpus.labelled) and args.max_nearest:
            reference, nearest = corpus, corpus.labelled[: args.max_nearest]
    explainer = Explainer(
        tagger,
        reference,
        reference_rows=nearest,
        version=tagger_version(args),
        cache_dir=args.cache_dir,
    )
    for note in explainer.notes:
        print_once(f"note: {note}")

    lock = Lock()  # a tagger computes for one visitor at a time

    def tag_upload(path: Path, columns: list[str]) -> Iterator[FileState]:
        return tag_file(path, columns or args.text_columns, tagger, n_scores, lock, args)

    limits = PageLimits(args.max_characters, args.max_megabytes)
    name = " and ".join(args.model)
    with tempfile.TemporaryDirectory(prefix="demo_") as folder:
        page = make_page(
            PageActions(tagger, tag_upload, lock, explainer, n_scores, limits),
            title=f"Tagger {name}",
            about=[describe_tagger(*pair) for pair in zip(args.model, taggers, strict=True)],
            examples=examples,
            folder=folder,
        )
        address = address_of(listening)
        print(f"The page of {name} ({len(tagger.label_names):,} labels) is at {address}")
        print("Ctrl-C stops it", flush=True)
        run_server(page, listening)
    print("stopped")


def tag_file(
    path: Path,
    text_columns: list[str],
    tagger: Tagger,
    n_scores: int,
    lock: Lock,
    args: DemoArguments,
) -> Iterator[FileState]:
    """Tag a file that was uploaded, as tag.py does; yield how far it is, at last with the output.

    The output lies beside the upload, in the same format (of Excel, as CSV).
    """
    check_unpacked_size(path, UNPACKED_FACTOR * args.max_megabytes)
    name = re.sub(r"\.json(\.gz)?$", r".jsonl\1", path.name, flags=re.IGNORECASE)
    name = re.sub(r"\.xlsx$", ".csv", name, flags=re.IGNORECASE)
    name = re.sub(r"\.txt(\.gz)?$", r".tsv\1", name, flags=re.IGNORECASE)
    output = path.with_name(f"tagged_{name}")
    source = open_source(
        str(path),
        column_names=args.column_names,
        delimiter=args.delimiter,
        quoting=args.quoting,
        encoding=args.encoding,
    )
    columns, _ = recognise_text_columns(source, text_columns)
    further = () if args.abstain is None else DOUBT
    n_rows, all_columns = 0, set()
    for n_rows, row in enumerate(source.read(required=columns), 1):
        check_row(row, columns, further, f"{path.name}, row {n_rows}", args.max_characters)
        all_columns.update(row)
    options = {"columns": all_columns, "label_names": tagger.label_names, "resume": False}
    options |= {"all_scores": n_scores == len(tagger.label_names), "further": further}
    with TaggedFile(str(output), {}, **options) as tagged:
        rows, size = source.read(required=columns), FIRST_BLOCK
        while block := list(islice(rows, size)):
            with lock:
                started = perf_counter()
                tagged.add(tagger.tag([join_text(row, columns) for row in block], n_scores))
            rows_in_time = int(len(block) / (perf_counter() - started) * SECONDS_PER_BLOCK)
            size = min(max(rows_in_time, FIRST_BLOCK), LARGEST_BLOCK)
            try:
                yield FileState(tagged.n_records, n_rows)
            except GeneratorExit:  # the visitor has left: nothing is kept
                return
        tagged.finish(lambda: source.read(required=columns))
    yield FileState(n_rows, n_rows, output)


def check_row(
    row: dict, columns: list[str], further: Sequence[str], place: str, max_characters: int
) -> None:
    """Refuse a row whose text is no text or too long, or whose columns have the names of tags."""
    try:
        kept_columns(row, further)
        text = join_text(row, columns)
    except ValueError as error:
        raise UserError(f"{place}: {error}") from error
    if len(text) > max_characters:
        raise UserError(
            f"{place}: the text has {len(text):,} characters, more than {max_characters:,}; "
            "shorten it"
        )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
