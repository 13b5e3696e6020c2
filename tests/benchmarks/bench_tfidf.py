"""TF-IDF with logistic regression on the splits of the tagger: the figure an encoder has to beat.

    PYTHONPATH=. python tests/benchmarks/bench_tfidf.py

Reads the real data below the folder named by RECIPES_DATA (default ../shared/data), trains on the
training and validation rows of recipes/configs/*.yaml and predicts at 0.5. Under a minute.
"""

from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from recipes.github_tagger import TaggerArguments
from shared.arguments import parse_arguments
from shared.data import load_data, load_held_out
from shared.metrics import f1_scores
from shared.splitters import train_valid_test_split

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"


def figures(train_texts, y_train, test_texts, y_test):
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    model = OneVsRestClassifier(LogisticRegression(C=30, class_weight="balanced", max_iter=500))
    model.fit(words.fit_transform(train_texts), y_train)
    found = f1_scores(y_test, model.predict_proba(words.transform(test_texts)) >= 0.5)
    return found["micro_f1"], found["macro_f1"]


def issues(seed):
    args = parse_arguments(TaggerArguments, ["--config", str(CONFIGS / "hf_datasets_issues.yaml")])
    corpus = load_data(args)
    labelled, y = corpus.labelled, corpus.label_matrix(corpus.labelled)
    sizes = {"valid_size": args.valid_size, "test_size": args.test_size}
    groups = corpus.groups[labelled]
    train, valid, test = train_valid_test_split(y, **sizes, groups=groups, random_state=seed)
    train = np.concatenate([train, valid])
    texts = [corpus.dataset.select(labelled[rows])["text"][:] for rows in (train, test)]
    return figures(texts[0], y[train], texts[1], y[test])


def nlbse24():
    args = parse_arguments(TaggerArguments, ["--config", str(CONFIGS / "nlbse24.yaml")])
    corpus = load_data(args)
    test = load_held_out(args.test_data, args, corpus)
    train, rows = corpus.labelled_outside([test]), test.labelled
    return figures(
        *(corpus.dataset.select(train)["text"][:], corpus.label_matrix(train)),
        *(test.dataset.select(rows)["text"][:], test.label_matrix(rows)),
    )


if __name__ == "__main__":
    for seed in (1, 2, 3):
        micro, macro = issues(seed)
        print(f"issues, seed {seed}: micro F1 {micro:.3f}, macro F1 {macro:.3f}")
    micro, macro = nlbse24()
    print(f"NLBSE'24: micro F1 {micro:.3f}, macro F1 {macro:.3f}")
