"""Look at a data set before training: labels, lengths, copies, conflicts, templates, and a map.

Why: most surprises of a training are in the data. One page shows what there is, names the rows, and
begins with what to do next: labels with too few texts, texts that a model would cut, copies with
different labels, templates that nobody filled in, other languages, labels that change with time.

    accelerate launch recipes/explore.py --config recipes/configs/explore_sample.yaml
    accelerate launch recipes/explore.py --data my_texts.csv --output_dir outputs/look
    accelerate launch recipes/explore.py --data my_texts.csv --map false --model my_encoder

Data: as described in README.md, labelled or not. The flags that rename, select and leave out labels
act as in every other recipe, so that the page shows what a training with them would see.

Output: explore.html, one file that needs no network, and explore.json with its figures. Both hold
texts of the data. Words that tell a label are those of Monroe, Colaresi and Quinn (2008), "Fightin'
Words": log-odds with an informative Dirichlet prior. Languages are found by py3langid. The map
shows sentence embeddings of at most --max_map texts in two dimensions (--projection); they are
cached.

Expect on one CPU core: half a minute for 10,000 issues without the map (--map false), which takes
23 seconds for 1,000 texts of at most 128 tokens.
"""

import textwrap
from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import numpy as np
from transformers import TrainingArguments

from shared.cli import (
    choose_precision,
    exit_on_user_error,
    flag,
    parse_arguments,
    start_recipe,
    write_json,
)
from shared.data import (
    DataArguments,
    cache_folder,
    detect_languages,
    find_shared_lines,
    load_corpus,
    load_data,
    read_time_column,
    text_groups,
)
from shared.methods import (
    CachedEmbedder,
    MeanPooling,
    WordCounts,
    project,
    telling_words,
)
from shared.models import (
    DEFAULT_MODEL,
    TEXT_PREFIX_HELP,
    choose_text_prefix,
    count_tokens,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_model,
)
from shared.reports import (
    copy_figures,
    label_figures,
    language_figures,
    length_figures,
    map_points,
    next_steps,
    row_figures,
    row_numbers,
    template_figures,
    time_figures,
    word_figures,
    write_explore_page,
)
from shared.training import LengthGroupedTrainer, PaddingCollator, ReadableProgress

WORDS_PER_LABEL = 12
MOST_TOKENS = 10**6  # a tokenizer that names no limit has a far higher number
PROJECTION_NAMES = {"pca": "principal components", "tsne": "t-SNE"}


@dataclass
class ExploreArguments(DataArguments, TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    model: str = flag(
        DEFAULT_MODEL,
        "Encoder whose tokens are counted, and that draws the map: a hub id or a folder (default: "
        f"{DEFAULT_MODEL}).",
    )
    text_prefix: str | None = flag(None, TEXT_PREFIX_HELP)
    time_column: str | None = flag(
        None,
        "Column with the time of each row (default: created_at, date, timestamp, time, datetime, "
        "created or published_at, if it holds times).",
    )
    max_texts: int = flag(
        20_000,
        "Number of texts whose tokens, words and languages are counted; of more, so many are drawn "
        "by --seed (default: 20,000).",
        least=1,
    )
    map: bool = flag(True, "Draw the map, which embeds texts (default: true).")
    max_map: int = flag(
        1000, "Maximum number of texts on the map, drawn by --seed (default: 1000).", least=1
    )
    max_length: int = flag(
        128,
        "Tokens per text that the map reads; it is not --max_length of a training (default: 128).",
        least=1,
    )
    projection: Literal["pca", "tsne"] = flag(
        "tsne",
        "From embeddings to a map: tsne keeps neighbours together, pca the largest distances "
        "(default: tsne).",
    )
    bf16: bool | None = flag(
        None,
        "Compute in bfloat16; false for exact figures (default: if the hardware supports it).",
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    output_dir: str = flag("outputs/explore", "Output folder (default: outputs/explore).")

    def __post_init__(self):
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Load, count, compare, embed for the map; say what to do next."""
    args = parse_arguments(ExploreArguments, description=__doc__)
    output_dir = start_recipe(args)

    # Load what a training would see, and the same with the exact copies that it would not see.
    corpus, _ = load_corpus(args, labels_required=False)
    all_rows = corpus
    # Labels that are merged, or voted on, are no conflict.
    if corpus.report["exact_duplicates"] and corpus.report["joining"] == "first":
        with args.main_process_first():
            separate = replace(args, duplicate_labels="separate")
            all_rows = load_data(separate, labels_required=False)
    model_folder = resolve_model(args.model)
    tokenizer = load_tokenizer(model_folder, choose_text_prefix(args.model, args.text_prefix))
    limit = tokenizer.model_max_length

    # The map: embed some of the texts, which all processes do together.
    rng = np.random.default_rng(args.seed)
    map_rows = draw_for_map(corpus, args.max_map if args.map else 0, rng)
    if args.map:
        vectors = embed(corpus, map_rows, tokenizer, model_folder, args)
    if args.process_index != 0:
        return

    # Count: on all rows what is quick; tokens, languages and words on those that are drawn.
    sample = draw(np.arange(len(corpus.dataset)), args.max_texts, rng)
    texts = corpus.dataset.select(sample)["text"][:]
    tokens, unknown = count_tokens(tokenizer, texts)
    figures = {
        "rows": row_figures(corpus),
        "labels": label_figures(corpus),
        "lengths": length_figures(
            *(corpus, sample, tokens, unknown),
            model=args.model,
            limit=limit if limit < MOST_TOKENS else None,
        ),
        "languages": language_figures(corpus, sample, detect_languages(texts)),
        "copies": copy_figures(all_rows, text_groups(all_rows)),
        "templates": template_figures(corpus, find_shared_lines(corpus.dataset["text"])),
    }
    dated = read_time_column(args, corpus, args.time_column)
    if dated is not None:
        figures["time"] = time_figures(corpus, *dated)
    if len(rows := np.intersect1d(sample, corpus.labelled)):
        counts = WordCounts.of(corpus.dataset.select(rows)["text"][:])
        y = corpus.label_matrix(rows).astype(bool)
        words = telling_words(counts, y, WORDS_PER_LABEL)
        numbers = row_numbers(corpus)[rows]
        figures["words"] = word_figures(words, counts, y, numbers, corpus.label_names)
    points = []
    if args.map:
        places = project(vectors, args.projection, seed=args.seed)
        points = map_points(corpus, map_rows, places)
        figures["map"] = {"model": args.model, "projection": PROJECTION_NAMES[args.projection]}

    # What follows from the figures; the page.
    steps = next_steps(figures, default_model=args.model == DEFAULT_MODEL)
    figures = {"next_steps": steps} | figures
    write_json(output_dir / "explore.json", figures)
    write_explore_page(
        *(output_dir, figures, points, corpus.label_names),
        subtitle=f"{args.data}, {date.today()}.",
        cache_dir=args.cache_dir,
    )
    print("\nWhat to do next")
    for number, step in enumerate(steps, 1):
        print(textwrap.fill(f"{number}. {step['text']}", 98, subsequent_indent="   "))
    print(f"\nThe page is {output_dir / 'explore.html'}; its figures are in explore.json.")


def embed(corpus, rows, tokenizer, model_folder: str, args: ExploreArguments) -> np.ndarray:
    """Return the embeddings of rows: the mean of the encoder's last hidden states, cached."""
    encoder = load_encoder(model_folder, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    trainer = LengthGroupedTrainer(  # it only predicts
        model=MeanPooling(encoder),
        args=args,
        data_collator=PaddingCollator(tokenizer),
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )
    embedder = CachedEmbedder(trainer, tokenizer, model_folder, cache_folder(args.cache_dir))
    return embedder(corpus.dataset.select(rows)["text"][:])


def draw_for_map(corpus, most: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the texts of the map: at least half of them with labels, if there are so many."""
    n_unlabelled = max(most // 2, most - len(corpus.labelled))
    unlabelled = draw(corpus.unlabelled, n_unlabelled, rng)
    labelled = draw(corpus.labelled, most - len(unlabelled), rng)
    return np.sort(np.concatenate([labelled, unlabelled]))


def draw(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most so many rows, drawn at random, in ascending order."""
    if len(rows) <= most:
        return rows
    return np.sort(rng.choice(rows, most, replace=False))


if __name__ == "__main__":
    with exit_on_user_error():
        main()
