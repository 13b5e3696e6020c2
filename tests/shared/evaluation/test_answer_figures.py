import numpy as np
import pytest

from shared.evaluation import SquadScores
from shared.evaluation.answers import answer_figures

PREDICTIONS = ["the red cat", "", "blue", "a", ""]
REFERENCES = [["red cat", "cat"], [""], ["dark blue sea"], [""], ["x"]]


def test_figures_are_those_of_the_evaluate_module():
    figures = answer_figures(PREDICTIONS, REFERENCES, confidence=0.95)
    module = SquadScores(confidence=0.95)
    expected = module.compute(predictions=PREDICTIONS, references=REFERENCES)
    for name, value in expected.items():
        assert figures[name.removeprefix("squad_")] == pytest.approx(value)
    # "a" is an article, of which no word is left: it counts as no answer.
    assert figures["exact_match"] == pytest.approx(3 / 5)
    assert figures["f1"] == pytest.approx((1 + 1 + 0.5 + 1) / 5)
    assert figures["has_answer_f1"] == pytest.approx((1 + 0.5) / 3)
    assert figures["no_answer_exact_match"] == 1
    assert (figures["has_answer_questions"], figures["no_answer_questions"]) == (3, 2)


def test_data_with_answers_alone_have_no_figures_of_others():
    figures = answer_figures(["x"], [["x"]])
    assert figures == {"exact_match": 1, "f1": 1, "questions": 1}
    with pytest.raises(ValueError, match="no question"):
        answer_figures([], [])
    assert np.isfinite(answer_figures([""], [[""]])["f1"])
