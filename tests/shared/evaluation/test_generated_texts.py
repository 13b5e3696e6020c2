"""Scores of generated texts by name."""

import pytest

from shared.cli.errors import UserError
from shared.evaluation.generated_texts import first_sentence, score_texts
from shared.evaluation.text_modules import Bleu, Rouge

TEXTS = ["the cat sat on the mat", "a dog runs home"]
RIGHT = [["the cat sat on a mat", "a cat"], ["a dog runs away from home"]]


def test_each_name_is_a_metric_of_the_library():
    scores = score_texts(TEXTS, RIGHT, ["bleu", "chrf", "rouge", "exact_match"])
    assert list(scores) == ["bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match"]
    assert scores["bleu"] == Bleu().compute(predictions=TEXTS, references=RIGHT)["bleu"]
    rouge = Rouge(("rouge1",)).compute(predictions=TEXTS, references=RIGHT)
    assert scores["rouge1"] == rouge["rouge1"]
    bounds = score_texts(TEXTS, RIGHT, ["rouge"], confidence=0.9)
    assert bounds["rouge1_low"] <= scores["rouge1"] <= bounds["rouge1_high"]


def test_mistakes():
    with pytest.raises(UserError, match="--metrics rogue: there are bleu, chrf"):
        score_texts(TEXTS, RIGHT, ["rogue"])
    with pytest.raises(UserError, match=r"--metrics bleu: references.0. holds a blank text"):
        score_texts(["a"], [[" "]], ["bleu"])


@pytest.mark.parametrize("text", ["数据集问题", "новая ошибка", "?!"])
def test_rouge_reads_texts_without_latin_letters(text):
    scores = score_texts([text, "a b"], [[text], ["a c"]], ["rouge"])
    assert scores["rouge1"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("It fails. Always.", "It fails."),
        ("## Bug\n\nVersion 1.2 fails! Why?", "Version 1.2 fails!"),
        ("first line\nsecond", "first line"),
        ("# only\n## headings", "# only\n## headings"),
        ("", ""),
    ],
)
def test_the_first_sentence_of_a_text(text, sentence):
    assert first_sentence(text) == sentence
