"""Compare the metrics of generated texts with their reference libraries and published scores.

    RECIPES_DATA=... PYTHONPATH=. python tests/benchmarks/bench_generation_metrics.py

Prints Markdown tables of values and processor seconds. Each row is measured here and by the library
alone, on the same texts, in the same run. METEOR needs WordNet's files (the extra "synonyms") and
is skipped without them. It takes two minutes of one core.
"""

import gzip
import json
import os
import re
import string
import tempfile
import time
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from shared.cli import UserError
from shared.data.wordnet import find_wordnet
from shared.evaluation import (
    Bleu,
    ChrF,
    Meteor,
    Perplexity,
    Rouge,
    SquadScores,
    causal_log_likelihoods,
)

DATA = Path(os.environ.get("RECIPES_DATA", Path(__file__).parents[3] / "shared" / "data"))
ROUGE_TYPES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def read(name):
    with gzip.open(DATA / name, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def timed(function):
    """Return a result and its processor seconds, which other programs hardly change."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def table(header, rows):
    print("| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for row in rows:
        print(
            "| " + " | ".join(f"{c:,.4f}" if isinstance(c, float) else str(c) for c in row) + " |"
        )
    print()


def compare(rows, name, module, texts, references, library, published):
    """Add a row for each result: the value here, the library's, the published one, and seconds."""
    results, ours = timed(lambda: module.compute(predictions=texts, references=references))
    expected, theirs = timed(library)
    for (key, value), other, figure in zip(results.items(), expected, published, strict=True):
        assert abs(value - other) < 1e-9, (name, key, value, other)
        assert figure is None or abs(value - figure) < 1e-9, (name, key, value, figure)
        seconds = [f"{ours:.2f}", f"{theirs:.2f}"]
        rows.append([name, key, value, other, "" if figure is None else figure, *seconds])


HEADER = ["texts", "metric", "here", "library", "published", "s here", "s library"]


def bench_translations():
    rows, texts = [], read("mt_metrics/wmt17_en_de.jsonl.gz")
    scores = json.loads((DATA / "mt_metrics" / "expected.json").read_text(encoding="utf-8"))
    references = [row["reference"] for row in texts]
    settings = {
        "bleu_13a": (Bleu, BLEU, {}),
        "bleu_none": (Bleu, BLEU, {"tokenize": "none"}),
        "bleu_intl": (Bleu, BLEU, {"tokenize": "intl"}),
        "bleu_char": (Bleu, BLEU, {"tokenize": "char"}),
        "bleu_none_lowercase": (Bleu, BLEU, {"tokenize": "none", "lowercase": True}),
        "chrf2": (ChrF, CHRF, {}),
        "chrf2++": (ChrF, CHRF, {"word_order": 2}),
    }
    for system, published in scores["corpus"].items():
        outputs = [row[system] for row in texts]
        for name, (module, metric, options) in settings.items():
            figure = published[name]
            figure = (figure["score"] if isinstance(figure, dict) else figure) / 100
            metric = metric(**options)
            library = lambda m=metric: [m.corpus_score(outputs, [references]).score / 100]  # noqa: B023, E731
            label = f"{system}, {name}"
            compare(rows, label, module(**options), outputs, references, library, [figure])
    print(f"Translations, {len(texts):,} texts, one reference each\n")
    table(HEADER, rows)

    outputs = [row["uedin-nmt.4722"] for row in texts]
    module = Bleu(confidence=0.95)
    results, ours = timed(lambda: module.compute(predictions=outputs, references=references))
    score, theirs = timed(lambda: BLEU().corpus_score(outputs, [references], n_bootstrap=1000))
    print("The interval of BLEU, 95 %, 1,000 resamples\n")
    low, high = ((score._mean + sign * score._ci) / 100 for sign in (-1, 1))
    table(
        ["", "low", "high", "s"],
        [
            ["here", results["bleu_low"], results["bleu_high"], f"{ours:.2f}"],
            ["sacrebleu", low, high, f"{theirs:.2f}"],
        ],
    )


def bench_summaries():
    rows, pairs = [], read("summary_metrics/pairs.jsonl.gz")
    parts = {
        name: [row for row in pairs if row["set"] == name] for name in ("pltrdy", "dialogsum_human")
    }
    for part, chosen in parts.items():
        texts = [row["hypothesis"] for row in chosen]
        references = [row["references"] for row in chosen]
        for use_stemmer in (False, True):
            scorer = RougeScorer(ROUGE_TYPES, use_stemmer=use_stemmer)

            def library(scorer=scorer, texts=texts, references=references):
                scores = [
                    scorer.score_multi(row, text)
                    for text, row in zip(texts, references, strict=True)
                ]
                return [np.mean([s[name].fmeasure for s in scores]) for name in ROUGE_TYPES]

            stored = "rouge_score_stemmed" if use_stemmer else "rouge_score"
            published = [np.mean([r[stored][name]["f"] for r in chosen]) for name in ROUGE_TYPES]
            module = Rouge(use_stemmer=use_stemmer)
            label = f"{part}{', stems' if use_stemmer else ''} ({len(texts)})"
            compare(rows, label, module, texts, references, library, published)
    print("Summaries\n")
    table(HEADER, rows)
    return parts["dialogsum_human"]


def nltk_wordnet(folder, copy):
    """Return NLTK's own WordNet, from a copy as its downloader leaves it."""
    import nltk
    from nltk.corpus import wordnet

    target = copy / "corpora" / "wordnet"
    target.mkdir(parents=True)
    for path in folder.iterdir():
        # NLTK cannot read the line endings of Windows.
        (target / path.name).write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    nltk.data.path.insert(0, str(copy))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no data of other languages
        wordnet.ensure_loaded()
    return wordnet


def bench_meteor(chosen):
    from nltk.translate.meteor_score import meteor_score

    try:
        folder = find_wordnet(user="Meteor")
    except UserError as error:
        print(f"METEOR is skipped: {error}\n")
        return
    module = Meteor()
    texts = [row["hypothesis"] for row in chosen]
    references = [row["references"] for row in chosen]
    words = module._scorer._tokenize
    tokens = [(words(t), [words(r) for r in row]) for t, row in zip(texts, references, strict=True)]
    with tempfile.TemporaryDirectory() as temporary:
        reader = nltk_wordnet(folder, Path(temporary))
        vocabulary = {
            word.lower() for text, row in tokens for words in (text, *row) for word in words
        }
        ours = module._scorer._settings["wordnet"]
        for word in vocabulary:
            expected = {
                lemma.name() for synset in reader.synsets(word) for lemma in synset.lemmas()
            }
            (synset,) = ours.synsets(word)
            assert {lemma.name() for lemma in synset.lemmas()} == expected, word
        print(f"METEOR: the synonyms of {len(vocabulary):,} words are those of NLTK's reader\n")

        def library():
            return [np.mean([meteor_score(row, text, wordnet=reader) for text, row in tokens])]

        rows = []
        compare(rows, f"dialogsum_human ({len(texts)})", module, texts, references, library, [None])
        table(HEADER, rows)


def squad_1_1(prediction, answers):
    """Return exact match and F1 as the script of SQuAD 1.1 defines them."""

    def normalize(text):
        text = "".join(c for c in text.lower() if c not in string.punctuation)
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())

    def f1(answer):
        words, gold = normalize(prediction).split(), normalize(answer).split()
        same = sum((Counter(words) & Counter(gold)).values())
        if not same:
            return 0.0
        precision, recall = same / len(words), same / len(gold)
        return 2 * precision * recall / (precision + recall)

    exact = max(normalize(prediction) == normalize(answer) for answer in answers)
    return float(exact), max(f1(answer) for answer in answers)


def bench_answers():
    rows = []
    gold = {row["id"]: [a["text"] for a in row["answers"]] for row in read("xquad/en.jsonl.gz")}
    for language in ("en", "de", "es"):
        answers = {
            row["id"]: row["answers"][0]["text"] for row in read(f"xquad/{language}.jsonl.gz")
        }
        texts, references = [answers[key] for key in gold], list(gold.values())

        def library(texts=texts, references=references):
            scores = [squad_1_1(*pair) for pair in zip(texts, references, strict=True)]
            return np.mean(scores, axis=0)

        compare(
            rows,
            f"{language} answers ({len(texts)})",
            SquadScores(),
            texts,
            references,
            library,
            [None] * 2,
        )
    print("Answers in three languages to the same questions, as if to the English ones\n")
    table(HEADER, rows)


class Bigrams(torch.nn.Module):
    """The probability of each character after each other one, as counted."""

    device = torch.device("cpu")

    class config:
        is_encoder_decoder = False
        model_type = "bigrams"

    def __init__(self, ids):
        super().__init__()
        counts = torch.zeros(27, 27)
        for row in ids:
            counts.index_put_((row[:-1], row[1:]), torch.ones(len(row) - 1), accumulate=True)
        self.logits = counts.log() - counts.sum(1, keepdim=True).log()

    def forward(self, input_ids, attention_mask):
        return type("Output", (), {"logits": self.logits[input_ids]})


def bench_perplexity():
    names = (DATA / "names" / "names.txt").read_text(encoding="utf-8").split()
    ids = [torch.tensor([0, *(ord(letter) - ord("a") + 1 for letter in name), 0]) for name in names]
    model = Bigrams(ids)

    def batches():
        for start in range(0, len(ids), 1024):
            part = ids[start : start + 1024]
            padded = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            lengths = torch.tensor([len(row) for row in part])
            mask = torch.arange(padded.shape[1])[None] < lengths[:, None]
            yield {"input_ids": padded, "attention_mask": mask.long()}

    values, seconds = timed(lambda: causal_log_likelihoods(model, batches()))
    result = Perplexity().compute(log_likelihoods=values)["perplexity"]
    by_hand = np.exp(-np.mean([model.logits[a, b] for row in ids for a, b in pairwise(row)]))
    assert abs(result - by_hand) < 1e-3
    n_tokens = sum(map(len, values))
    print(
        f"Perplexity of a bigram model of {len(names):,} names: {result:.4f}, of {n_tokens:,} "
        f"characters; its logarithm is {np.log(result):.4f} (published: 2.454); {seconds:.2f} s\n"
    )


def main():
    if not DATA.is_dir():
        print(f"No real data: {DATA} does not exist (RECIPES_DATA).")
        return
    bench_translations()
    bench_meteor(bench_summaries())
    bench_answers()
    bench_perplexity()


if __name__ == "__main__":
    main()
