"""TF-IDF with logistic regression on the splits of the tagger: the baseline of an encoder.

    PYTHONPATH=. python tests/benchmarks/bench_tfidf.py

Reads the real data in the folder RECIPES_DATA (default ../shared/data), trains on the training and
validation rows of two configs of the tagger and predicts with a threshold of 0.5. It takes under a
minute.
"""

from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from recipes.github_tagger import TaggerArguments
from shared.cli import parse_arguments
from shared.data import load_data, load_held_out, split_corpus
from shared.evaluation import f1_scores

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"


def compare(config: str, seed: int, *flags: str) -> None:
    """Print the test F1 on the split that the tagger has with this config and seed."""
    args = parse_arguments(TaggerArguments, ["--config", str(CONFIGS / config), *flags])
    corpus = load_data(args)
    parts = split_corpus(corpus, load_held_out(args, corpus), args, seed=seed)
    y = np.concatenate([parts.labels["train"], parts.labels["valid"]])
    texts = [*parts.rows["train"]["text"], *parts.rows["valid"]["text"]]
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    model = OneVsRestClassifier(LogisticRegression(C=30, class_weight="balanced", max_iter=500))
    model.fit(words.fit_transform(texts), y)
    scores = model.predict_proba(words.transform(parts.rows["test"]["text"]))
    actual = f1_scores(parts.labels["test"], scores >= 0.5)
    micro, macro = actual["micro_f1"], actual["macro_f1"]
    print(
        f"{config}, seed {seed}{' '.join(['', *flags])}: micro F1 {micro:.3f}, macro F1 {macro:.3f}"
    )


if __name__ == "__main__":
    for seed in (1, 2, 3):
        compare("hf_datasets_issues.yaml", seed)
    # It has its own test file, so the seed does not change the test set.
    compare("nlbse24.yaml", 1)
    compare("nlbse24.yaml", 1, "--drop_repeated", "true")
