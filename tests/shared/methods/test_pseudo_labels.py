"""The choice of unlabelled texts, their weights, and those of the rows of a student."""

import numpy as np
import pytest
from tiny_training import make_rows, make_trainer

from shared.evaluation import DecisionRule
from shared.methods import (
    AcquisitionArguments,
    Teacher,
    TeacherPredictions,
    choose_texts,
    student_rows,
)
from shared.methods.pseudo_labels import SMALLEST_VARIANCE, student_weights

ACQUISITIONS = ["easy", "hard", "uniform", "surest"]


def predictions(n=300, classes=3, seed=0):
    """Scores whose best label is a class with a third, a quarter, ... of the texts."""
    rng = np.random.default_rng(seed)
    best = rng.choice(classes, n, p=[0.6, 0.3, 0.1])
    scores = rng.dirichlet(np.ones(classes), n)
    order = np.argsort(-scores, axis=1)
    for row, label in enumerate(best):  # move the highest score to the class
        scores[row, [label, order[row, 0]]] = scores[row, [order[row, 0], label]]
    return TeacherPredictions(scores, rng.random(n), rng.random(n) / 4)


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_every_class_gives_the_same_number_of_texts(acquisition):
    p = predictions()
    chosen = choose_texts(p, 60, acquisition, seed=1)
    assert np.bincount(p.scores[chosen].argmax(axis=1)).tolist() == [20, 20, 20]
    assert len(set(chosen.tolist())) == 60
    np.testing.assert_array_equal(chosen, np.sort(chosen))


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_a_class_with_too_few_texts_gives_all_of_them_and_others_more(acquisition):
    p = predictions()
    n_last = int((p.scores.argmax(axis=1) == 2).sum())
    chosen = choose_texts(p, n_last + 100, acquisition, seed=1)
    assert np.bincount(p.scores[chosen].argmax(axis=1)).tolist() == [50, 50, n_last]
    np.testing.assert_array_equal(choose_texts(p, 300, acquisition, seed=1), np.arange(300))


def test_the_seed_decides_a_draw_and_not_the_surest():
    p = predictions()
    for acquisition in ACQUISITIONS:
        first, second = (choose_texts(p, 60, acquisition, seed=(seed, 1)) for seed in (0, 1))
        assert (first.tolist() == second.tolist()) == (acquisition == "surest")
        again = choose_texts(p, 60, acquisition, seed=(0, 1))
        np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(("acquisition", "weights"), [("easy", [0.9, 0.1]), ("hard", [0.1, 0.9])])
def test_a_text_is_drawn_as_often_as_the_equation_says(acquisition, weights):
    """One of two texts of a class, with uncertainties .1 and .9."""
    p = TeacherPredictions(np.array([[0.8, 0.2], [0.7, 0.3]]), np.array([0.1, 0.9]), np.zeros(2))
    drawn = [choose_texts(p, 1, acquisition, seed=seed).item() for seed in range(2000)]
    assert np.bincount(drawn) / 2000 == pytest.approx(weights, abs=0.03)


def test_easy_texts_are_told_from_hard_ones_of_many_labels():
    """The uncertainty of many labels is above 1 nat, where 1 - B would be below 0."""
    p = TeacherPredictions(np.tile([0.8, 0.2], (2, 1)), np.array([1.5, 3.0]), np.zeros(2))
    drawn = [choose_texts(p, 1, "easy", seed=seed).item() for seed in range(300)]
    assert np.mean(drawn) < 0.05


def test_of_texts_with_equal_scores_not_the_first_ones_are_the_surest():
    p = TeacherPredictions(np.tile([0.9, 0.1], (400, 1)), np.zeros(400), np.zeros(400))
    chosen = choose_texts(p, 40, "surest", seed=0)
    assert 0.3 < np.mean(chosen) / 400 < 0.7
    np.testing.assert_array_equal(chosen, choose_texts(p, 40, "surest", seed=0))


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_fewer_texts_than_classes_are_chosen(acquisition):
    p = TeacherPredictions(np.eye(5), np.full(5, 0.5), np.zeros(5))
    assert len(choose_texts(p, 2, acquisition, seed=0)) == 2


@pytest.mark.parametrize("acquisition", ["easy", "hard", "surest"])
def test_a_text_without_a_score_is_the_last_one(acquisition):
    scores = np.array([[np.nan, np.nan], [0.9, 0.1], [0.8, 0.2], [0.6, 0.4]])
    p = TeacherPredictions(scores, np.array([np.nan, 0.1, 2.0, 0.5]), np.ones(4))
    assert 0 not in choose_texts(p, 3, acquisition, seed=0)


def test_the_surest_texts_have_the_highest_scores_of_their_class():
    p = predictions()
    chosen = choose_texts(p, 30, "surest", seed=0)
    best, score = p.scores.argmax(axis=1), p.scores.max(axis=1)
    for label in range(3):
        rows = chosen[best[chosen] == label]
        others = np.setdiff1d(np.flatnonzero(best == label), rows)
        assert score[rows].min() >= score[others].max()


def test_no_text_is_chosen_from_none():
    none = TeacherPredictions(np.zeros((0, 3)), np.zeros(0), np.zeros(0))
    assert choose_texts(none, 0, "easy", seed=0).tolist() == []


def make_teacher(p, **attributes):
    rule = DecisionRule.of(0.5, p.scores.shape[1])
    return Teacher(1, p, {"unlabelled": rule.choose(p.scores)}, rule, **attributes)


def test_a_teacher_gives_texts_with_labels_and_weights():
    p, texts, args = predictions(n=9), make_rows(9), AcquisitionArguments(chosen=1 / 3)
    teacher = make_teacher(p)
    chosen, labels, weights = teacher.choose(texts, args, seed=0)
    rows = choose_texts(p, 3, "surest", seed=0)
    assert chosen["input_ids"] == texts.select(rows)["input_ids"]
    np.testing.assert_array_equal(labels, p.scores[rows] >= 0.5)
    np.testing.assert_array_equal(weights, p.weights()[rows])
    args = AcquisitionArguments(chosen=1 / 3, pseudo_labels="soft", uncertainty="none")
    _, labels, weights = teacher.choose(texts, args, seed=0)
    np.testing.assert_array_equal(labels, p.scores[rows])
    assert weights.tolist() == [1, 1, 1]
    assert teacher.explain() == ""
    student = make_teacher(p, chosen=(chosen, labels, weights))
    assert "on 3 unlabelled texts, with the labels of a teacher (round 1" in student.explain()


def test_one_unlabelled_text_is_chosen():
    teacher = make_teacher(predictions(n=1))
    chosen, *_ = teacher.choose(make_rows(1), AcquisitionArguments(chosen=0.1), seed=0)
    assert len(chosen) == 1


def test_weights_are_the_log_of_one_over_the_variance():
    p = TeacherPredictions(np.zeros((3, 2)), np.zeros(3), np.array([0.25, 0.01, 0.0]))
    assert p.weights() == pytest.approx([np.log(4), np.log(100), -np.log(SMALLEST_VARIANCE)])


def test_a_teacher_without_passes_doubts_by_its_scores():
    scores = np.array([[0.9, 0.1], [0.5, 0.5]])
    p = TeacherPredictions.of_scores(scores, single_label=True)
    assert p.variance == pytest.approx([0.09, 0.25])
    assert p.uncertainty == pytest.approx([-0.9 * np.log(0.9) - 0.1 * np.log(0.1), np.log(2)])
    p = TeacherPredictions.of_scores(np.array([[0.9, 0.8]]), single_label=False)
    assert p.variance == pytest.approx([(0.09 + 0.16) / 2])


@pytest.mark.parametrize("passes", [0, 3])
def test_a_trained_model_is_asked_about_texts(passes, tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, dropout=0.1)
    rows = make_rows(9).remove_columns("labels")
    p = TeacherPredictions.of_model(trainer, rows, passes=passes)
    assert p.scores.shape == (9, 4)
    assert (p.uncertainty.shape, p.variance.shape) == ((9,), (9,))
    plain = 1 / (1 + np.exp(-trainer.predict(rows).predictions))
    assert np.abs(p.scores - plain).max() < (0.2 if passes else 1e-6)
    assert len(TeacherPredictions.of_model(trainer, rows.select([]), passes=passes).scores) == 0


# --- weights of a student ------------------------------------------------------------------------


def test_labelled_rows_have_at_least_their_share():
    weights = student_weights(np.ones(2), np.array([1.0, 3.0] * 4), 0.5)
    assert weights.mean() == pytest.approx(1)
    assert weights[:2] == pytest.approx([2.5, 2.5])  # half of all ten, for two rows
    assert weights[2:4] == pytest.approx([5 / 16, 15 / 16])


def test_many_labelled_rows_keep_the_weight_of_their_number():
    weights = student_weights(np.ones(6), np.ones(2), 0.1)
    assert weights == pytest.approx(np.ones(8))


def test_either_part_may_be_missing():
    assert student_weights(np.ones(3), np.zeros(0), 0.1) == pytest.approx(np.ones(3))
    assert student_weights(np.zeros(0), np.array([1.0, 3.0]), 0.1) == pytest.approx([0.5, 1.5])


def test_rows_without_any_weight_leave_it_to_the_others():
    """Labels of a language model whose confidence is 0."""
    assert student_weights(np.zeros(2), np.ones(2), 0.5) == pytest.approx([0, 0, 2, 2])
    assert student_weights(np.ones(2), np.zeros(2), 0.1) == pytest.approx([2, 2, 0, 0])


def test_the_rows_of_a_student_are_labelled_ones_and_chosen_ones():
    labelled = make_rows(3), np.eye(4)[:3], np.ones(3)
    by_others = make_rows(2, seed=1).select([]), np.zeros((0, 4)), np.zeros(0)
    chosen = make_rows(5, seed=2), np.full((5, 4), 0.25), np.ones(5)
    rows = student_rows([labelled, by_others], [chosen], 0.5)
    assert rows["length"] == [*labelled[0]["length"], *chosen[0]["length"]]
    assert rows[0]["labels"] == [1, 0, 0, 0]
    assert rows[7]["labels"] == [0.25] * 4
    assert rows["weight"] == pytest.approx([8 / 6] * 3 + [0.8] * 5)
    assert student_rows([labelled], [], 0.5)["weight"] == pytest.approx([1, 1, 1])
