import json
from dataclasses import dataclass

import numpy as np
import pytest

from shared.cli.arguments import parse_arguments
from shared.cli.errors import UserError
from shared.data.arguments import SplitArguments
from shared.data.corpus import load_corpus
from shared.data.label_noise import plant_label_errors


def corpus_of(tmp_path, labels):
    rows = [json.dumps({"text": f"word{i} text{i}", "labels": row}) for i, row in enumerate(labels)]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    flags = ["--data", str(path), "--cache_dir", str(tmp_path / "cache")]
    flags += ["--min_label_count", "1", "--empty_labels", "negative"]
    corpus, _ = load_corpus(parse_arguments(SplitArguments, flags))
    return corpus


def planted(corpus, share=0.5, seed=0):
    noisy, rows = plant_label_errors(corpus, share, seed=seed)
    before, after = (c.label_matrix() for c in (corpus, noisy))
    changed = np.flatnonzero((before != after).any(axis=1))
    np.testing.assert_array_equal(changed, rows)
    return noisy, rows, before.astype(int), after.astype(int)


def test_one_label_is_replaced_by_another(tmp_path):
    corpus = corpus_of(tmp_path, [["a"], ["a", "b"], ["b", "c"], ["c"], []] * 8)
    noisy, rows, before, after = planted(corpus)
    assert len(rows) == 20
    some = before[rows].any(axis=1)
    assert 0 < some.sum() < 20
    np.testing.assert_array_equal((after - before)[rows[some]].sum(axis=1), 0)
    np.testing.assert_array_equal(np.abs(after - before)[rows[some]].sum(axis=1), 2)
    np.testing.assert_array_equal(after[rows[~some]].sum(axis=1), 1)
    assert list(noisy.report["labels"].values()) == after.sum(axis=0).tolist()
    assert noisy.dataset["text"][:] == corpus.dataset["text"][:]


def test_one_label_per_text_stays_one_label_per_text(tmp_path):
    corpus = corpus_of(tmp_path, [["yes"], ["no"], ["maybe"]] * 10)
    noisy, _, _, after = planted(corpus)
    assert noisy.single_label
    np.testing.assert_array_equal(after.sum(axis=1), 1)


def test_a_single_label_is_flipped(tmp_path):
    corpus = corpus_of(tmp_path, [["spam"], []] * 10)
    _, rows, before, after = planted(corpus)
    np.testing.assert_array_equal(after[rows], 1 - before[rows])


def test_the_seed_decides_which_rows(tmp_path):
    corpus = corpus_of(tmp_path, [["a"], ["b"]] * 30)
    rows = [plant_label_errors(corpus, 0.2, seed=seed)[1].tolist() for seed in (1, 1, 2)]
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize(
    ("added", "message"),
    [
        (("--evaluate", "held_out"), "needs --evaluate cross_validation"),
        (("--repeats", "2"), "reports one cross-validation; remove --repeats"),
    ],
)
def test_it_needs_one_cross_validation(added, message):
    from shared.data.resampling import EvaluationArguments, load_resampling

    flags = [*("--data", "sample", "--simulate_noise", ".1"), *added]

    @dataclass
    class Arguments(EvaluationArguments, SplitArguments):
        pass

    with pytest.raises(UserError, match=f"--simulate_noise: {message}"):
        load_resampling(parse_arguments(Arguments, flags), seed=1)
