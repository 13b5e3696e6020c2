"""Classify texts from 8 to a few hundred labelled ones: a probe on meaning and vocabulary.

Why: the recipe to take when labels are few. Each text becomes two vectors: the embedding of a
sentence encoder, which knows language, and its place in the vocabulary of your own texts, learned
from the unlabelled ones (latent semantic analysis, Deerwester et al. 1990), which knows your names
of things. One logistic regression per label on both together, rare labels weighed up, is fitted in
a second and has nothing to tune: validation rows only tell how good it is. Every text gets its best
label, and each other one that is more likely than not. Where all labelled texts have exactly one,
it gets the best alone; where some have none (--empty_labels negative), the likely ones alone.

    accelerate launch recipes/few_label_probe.py --config recipes/configs/few_label_sample.yaml
    accelerate launch recipes/few_label_probe.py --data issues.jsonl --train_size 64

Data: as for recipes/github_tagger.py, with the same parts and the same nested --train_size, so that
their figures compare. Vectors are kept in the cache: a second run on the same texts takes seconds.

Expect on two CPU cores, default encoder: 20 texts of 250 tokens per second, 1 GB of memory. On the
sample (9 labels, mean of three seeds) micro F1 .36 with 8 training texts, .45 with 16, .70 with 64,
and .81 with all 219.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import datasets
import numpy as np
from transformers import TrainingArguments

from shared.arguments import flag, parse_arguments
from shared.baselines import fit_scorer, logistic_probe
from shared.callbacks import ReadableProgress
from shared.collators import PaddingCollator
from shared.data import load_data, load_held_out
from shared.data_arguments import SplitArguments
from shared.decisions import at_least_one, choose_labels
from shared.embeddings import MeanPooling, cached_vectors, normalized, part_vectors
from shared.errors import UserError, exit_on_user_error
from shared.files import make_output_dir
from shared.lsa import latent_semantic_vectors
from shared.models import DEFAULT_MODEL, limit_length, load_encoder, load_tokenizer, resolve_model
from shared.parts import split_corpus
from shared.predictions import examples
from shared.progress import quiet_libraries
from shared.results import contents, part_figures, write_results
from shared.trainer import LengthGroupedTrainer


@dataclass
class ProbeArguments(SplitArguments, TrainingArguments):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(256, "Tokens of a text that the model reads (default: 256).")
    vocabulary_size: int = flag(256, "Dimensions of the vocabulary, at most (default: 256).")
    max_unlabelled: int = flag(
        20_000, "Unlabelled texts to learn the vocabulary from, at most (default: 20,000)."
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    output_dir: str = flag("outputs/few_label_probe", "Folder (default: outputs/few_label_probe).")

    def __post_init__(self):
        for name, least in (("vocabulary_size", 1), ("max_unlabelled", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)}: must be {least} or more")
        super().__post_init__()


def main() -> None:
    """Load, split, embed, learn the vocabulary, fit, score, save."""
    args = parse_arguments(ProbeArguments, description=__doc__)
    quiet_libraries()
    output_dir = make_output_dir(args.output_dir)
    say = print if args.process_index == 0 else lambda *_: None
    with args.main_process_first(desc="preparing the data"):
        corpus = load_data(args)
        held_out = load_held_out(args, corpus)
    say(f"\nData\n{corpus.describe()}")
    for name, other in held_out.items():
        say(f"{name} rows: {other.describe(brief=True)}")
    parts = split_corpus(corpus, held_out, args, seed=args.seed)
    say(parts.describe())
    rows, y = parts.rows, parts.labels

    # What a text means: one vector each; those of all labelled rows, which other runs use again
    model_folder = resolve_model(args.model)
    tokenizer = load_tokenizer(model_folder)
    encoder = load_encoder(model_folder, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    trainer = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        args=args,
        data_collator=PaddingCollator(tokenizer),
        callbacks=[ReadableProgress()],
    )
    cache_dir = args.cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "recipes"
    spent = Counter()

    def embed(texts):
        def compute():
            ids = tokenizer(list(texts), truncation=True)["input_ids"]
            lengths = [len(row) for row in ids]
            tokens = datasets.Dataset.from_dict({"input_ids": ids, "length": lengths})
            return trainer.predict(tokens).predictions

        where = (model_folder, args.max_length, cache_dir)
        return normalized(cached_vectors(texts, *where, compute, spent))

    meaning = part_vectors(parts, embed)
    texts = {part: rows[part]["text"] for part in rows}
    if len(corpus.unlabelled):
        texts["unlabelled"] = corpus.dataset.select(corpus.unlabelled[:3])["text"]
        meaning["unlabelled"] = embed(texts["unlabelled"])
    started = perf_counter()
    if args.process_index != 0:
        return

    # The vocabulary of the texts, without any that is held out; then the probe on both
    drawn = parts.unlabelled
    if len(drawn) > args.max_unlabelled:
        rng = np.random.default_rng(args.seed)
        drawn = np.sort(rng.choice(drawn, args.max_unlabelled, replace=False))
    learn_from = [*texts["train"], *corpus.dataset.select(drawn)["text"]]
    vocabulary = latent_semantic_vectors(
        learn_from, *texts.values(), n_components=args.vocabulary_size, seed=args.seed
    )
    both = {
        part: np.concatenate([meaning[part], words], axis=1)
        for part, words in zip(texts, vocabulary, strict=True)
    }
    score = fit_scorer(logistic_probe(), both.pop("train"), y["train"])
    trained = perf_counter()
    scores = {part: score(vectors) for part, vectors in both.items()}
    per_text = spent["seconds"] / spent["texts"]
    per_text += (perf_counter() - trained) / sum(map(len, both.values()))
    one_each = corpus.one_label_each
    some = args.empty_labels == "unlabelled" and not one_each  # a text without any is unlabelled
    predicted = {
        part: at_least_one(p) if some else choose_labels(p, 0.5, one_each=one_each)
        for part, p in scores.items()
    }

    # Figures of validation, and one look at the test rows; then everything a person wants to see
    figures = part_figures(y, scores, predicted)
    figures |= {"embed_runtime": spent["seconds"], "train_runtime": trained - started}
    figures["test_runtime"] = per_text * len(y["test"])
    report = write_results(
        output_dir,
        corpus=corpus,
        labels=y,
        test_rows=rows["test"],
        scores=scores["test"],
        predicted=predicted["test"],
        metrics={**figures, "seed": args.seed},
    )

    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    if "unlabelled" in texts:
        print("\nTags for texts without labels")
        found = scores["unlabelled"], predicted["unlabelled"]
        print(examples(texts["unlabelled"], *found, corpus.label_names))
    print(f"\n{contents(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
