"""Label texts on a web page, with a key for each label.

Why: labels by hand are where most projects begin, and an annotation tool for a team is a project of
its own. This page is for one person: it shows one text after the other, a key labels it, and the
result is a file that every recipe reads. Where a tagger has suggested labels, one key takes them.

    accelerate launch recipes/annotate.py --data texts.csv --candidate_labels bug question
    accelerate launch recipes/annotate.py --data outputs/batch/to_label.jsonl --guide guide.yaml
    accelerate launch recipes/annotate.py --data texts.csv --guide guide.yaml --multilabel false
    accelerate launch recipes/annotate.py --config recipes/configs/annotate_sample.yaml

Open the address that it prints. 1 to 9, then a to z, choose labels; 0 takes the suggestion; Enter
saves (with --multilabel false, the key of the label saves); - skips, Backspace takes back, / writes
a note, and the arrows go through the texts, also to change labels. Ctrl-C ends it, and the same
command goes on.

Data: as described in README.md; rows without labels are shown, in the order of the file.
label_next.py puts those first that teach most: its to_label.jsonl has the suggestions and the
reason of each text. When the file changes, as by its next batch, the page goes on with it.

The label guide is YAML: for each label a definition, or {definition: ..., examples: [...]}.

Output: clicks.jsonl, to which each click is appended and synchronised with the disk before the page
goes on, so that no kill loses one; and labelled.jsonl, data for every recipe, with text, labels
(null: skipped; empty: none applies), annotator (--annotator), note, time and row. It holds the
labels of all batches. Several tabs may be open. For several people, give each an --output_dir.

It listens on this machine only, and answers nobody who lacks the token in the address. The page
loads nothing from other servers.

Expect, with some thousand texts, a click to be on the disk, and the next text on the page, in a
tenth of a second; with tens of thousands, and for a correction, in up to a second. From 20 labels
on, the page shows the F1 of a quick classifier of words in a cross-validation, estimated in another
process: less than few_label_probe.py would reach, but its rise tells what labels bring.
"""

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.cli import (
    UserError,
    exit_on_user_error,
    expand_path,
    flag,
    parse_arguments,
    start_recipe,
)
from shared.data import (
    Corpus,
    DataArguments,
    TextToLabel,
    load_texts_to_label,
    read_label_guide,
)
from shared.serving import (
    AnnotationLog,
    Background,
    Queue,
    Task,
    address_of,
    bind,
    make_annotation_app,
    run_server,
)


@dataclass
class AnnotateArguments(DataArguments):
    """The flags of this recipe, which uses no Trainer."""

    candidate_labels: list[str] | None = flag(
        None,
        "Names of the labels, in the order of their keys (default: those of --guide; without one, "
        "those of the data and of its suggestions).",
    )
    guide: str | None = flag(
        None, "YAML file: label to definition, or to definition and examples (default: none)."
    )
    multilabel: bool | None = flag(
        None,
        "A text has any number of labels; false: exactly one, whose key saves (default: as the "
        "labelled rows; without any, true).",
    )
    annotator: str | None = flag(
        None, "Your name, for the column annotator (default: there is no such column)."
    )
    port: int = flag(
        7861, "Port to listen on; 0: any free one (default: 7861).", least=0, most=65535
    )
    output_dir: str = flag("outputs/annotate", "Output folder (default: outputs/annotate).")

    def __post_init__(self):
        if self.candidate_labels is not None:
            self.candidate_labels = [name.strip() for name in self.candidate_labels]
            if "" in self.candidate_labels:
                raise UserError("--candidate_labels: a label has a name")
        if self.annotator is not None and not self.annotator.strip():
            raise UserError("--annotator: the name is blank")


def main() -> None:
    """Load the texts, listen, and show the page until a signal."""
    args = parse_arguments(AnnotateArguments, description=__doc__)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("annotate takes one process; give --num_processes 1")
    output_dir = start_recipe(args)
    # Listen first: a port in use is seen before the data are read. Browsers wait until then.
    listening = bind("127.0.0.1", args.port)
    guide = read_label_guide(args.guide) if args.guide else {}
    reload = make_reloader(args)  # before the file is read: a change meanwhile is seen
    corpus, texts = load_texts_to_label(args)
    print(f"\nData\n{corpus.describe()}")

    with AnnotationLog(output_dir, args.annotator) as log:
        label_names = choose_label_names(args, guide, corpus, texts, log)
        multilabel = args.multilabel
        if multilabel is None:
            multilabel = not (len(corpus.labelled) and corpus.single_label)
        queue = Queue(texts, log)
        if not len(queue):
            raise UserError(f"--data {args.data}: every row has labels; add texts to label")
        labelled_file = str(output_dir / "labelled.jsonl")
        task = Task(label_names, not multilabel, guide, Path(args.data).name, labelled_file)
        background = Background(
            queue,
            label_names,
            single_label=not multilabel,
            load_if_changed=reload,
        )
        token = secrets.token_urlsafe(24)
        app = make_annotation_app(queue, task, token, background)
        n_open = queue.counts()[None]
        one = "any number of" if multilabel else "one of"
        print(f"\n{n_open:,} of {len(queue):,} texts are open; {one} {len(label_names):,} labels")
        print(f"Open {address_of(listening)}/?token={token}")
        print("Ctrl-C ends it", flush=True)
        run_server(app, listening)
        n_rows = len(log.annotations())
    print(f"stopped; {labelled_file} has {n_rows:,} rows")


def choose_label_names(
    args: AnnotateArguments,
    guide: dict,
    corpus: Corpus,
    texts: Sequence[TextToLabel],
    log: AnnotationLog,
) -> list[str]:
    """Return the names of the labels, in the order of their keys.

    Flags come first; else the data decide. Labels of earlier clicks stay.
    """
    names = [*(args.candidate_labels or []), *guide]
    if not names:
        suggested = sorted({name for text in texts for name in (*text.suggested, *text.scores)})
        names = [*corpus.label_names, *suggested]
    clicked = [name for annotation in log.annotations() for name in annotation.labels]
    names = list(dict.fromkeys([*names, *clicked]))
    if not names:
        raise UserError(
            "there are no labels to choose from; name them with --candidate_labels or --guide"
        )
    return names


def make_reloader(args: AnnotateArguments) -> Callable[[], list[TextToLabel] | None]:
    """Return a function that loads the texts if the file of --data has changed, else None."""
    path = expand_path(args.data)

    def stamp() -> tuple[int, int] | None:
        try:
            return path.stat().st_mtime_ns, path.stat().st_size
        except OSError:  # no file, such as the name of a hub data set; or it is being replaced
            return None

    last = stamp()

    def load_if_changed() -> list[TextToLabel] | None:
        nonlocal last
        now = stamp()
        if now in (None, last):
            return None
        last = now
        return load_texts_to_label(args)[1]

    return load_if_changed


if __name__ == "__main__":
    with exit_on_user_error():
        main()
