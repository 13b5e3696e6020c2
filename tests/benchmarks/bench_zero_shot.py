"""Compare zero-shot entailment with the pipeline of transformers: texts per second, and scores.

    RECIPES_DATA=... python tests/benchmarks/bench_zero_shot.py

Both use the same model, texts, labels and sentence in the same run: AG News (four labels, texts of
50 tokens) and issues of huggingface/datasets (twelve labels, truncated to 256 tokens). Ours runs in
single precision, like the pipeline, and in bfloat16, like recipes/zero_shot.py if the hardware
supports it.
"""

import tempfile
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
from transformers import TrainingArguments, pipeline

from shared.data import DataArguments, load_data
from shared.methods import entailment_classes, entailment_scores
from shared.models import limit_length, load_sequence_classifier, load_tokenizer, tokenize_texts
from shared.training import LengthGroupedTrainer, PaddingCollator

MODEL = Path(__file__).parents[2] / "recipes" / "models" / "minilm_nli"
SENTENCE = "This example is about {}."
DATA = {
    "AG News": (200, DataArguments(data="$RECIPES_DATA/ag_news/test.jsonl.gz")),
    "issues": (
        40,
        DataArguments(
            data="$RECIPES_DATA/hf-datasets-issues/issues.jsonl.gz",
            drop_labels=["duplicate", "wontfix"],
            min_label_count=19,
        ),
    ),
}


def main() -> None:
    """Score the same texts with both, three times alternately; print the ratio of the medians."""
    tokenizer = load_tokenizer(str(MODEL))
    model = load_sequence_classifier(str(MODEL), tokenizer=tokenizer)
    limit_length(tokenizer, model, 256)
    classes = entailment_classes(model.config)
    with tempfile.TemporaryDirectory() as folder:
        # The pipeline reads a folder, so that both have the same weights.
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        peer = pipeline("zero-shot-classification", model=folder, device="cpu")
        args = TrainingArguments(
            output_dir=folder, use_cpu=True, per_device_eval_batch_size=32, report_to="none"
        )
        trainer = LengthGroupedTrainer(
            model=model, args=args, data_collator=PaddingCollator(tokenizer)
        )
        for name, (n, data) in DATA.items():
            corpus = load_data(data)
            rows = np.random.default_rng(0).choice(corpus.labelled, n, replace=False)
            texts, labels = corpus.dataset.select(rows)["text"][:], corpus.label_names
            sentences = [SENTENCE.format(label) for label in labels]

            def ours(bf16, texts=texts, sentences=sentences):
                trainer.bf16_predictions = bf16
                actual = trainer.predict(tokenize_texts(tokenizer, texts, sentences)).predictions
                return entailment_scores(actual, classes).reshape(len(texts), -1)

            def theirs(texts=texts, labels=labels):
                options = {"hypothesis_template": SENTENCE, "multi_label": True}
                scores = []
                for actual in peer(texts, labels, **options):
                    by_label = dict(zip(actual["labels"], actual["scores"], strict=True))
                    scores.append([by_label[label] for label in labels])
                return np.array(scores)

            runs = {"fp32": partial(ours, False), "bf16": partial(ours, True), "pipeline": theirs}
            seconds, scores = {name: [] for name in runs}, {}
            for _ in range(3):
                for run, score in runs.items():
                    started = perf_counter()
                    scores[run] = score()
                    seconds[run].append(perf_counter() - started)
            peer_seconds = np.median(seconds.pop("pipeline"))
            print(f"{name}, {len(labels)} labels: pipeline {n / peer_seconds:.1f} texts per second")
            for run, times in seconds.items():
                apart = np.abs(scores[run] - scores["pipeline"]).max()
                ratio = peer_seconds / np.median(times)
                print(f"  {run}: {ratio:.1f} times, scores at most {apart:.0e} apart", flush=True)


if __name__ == "__main__":
    main()
