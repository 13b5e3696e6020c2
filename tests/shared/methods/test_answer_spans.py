"""Windows of questions, and the answers that their logits give."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.data.questions import Question
from shared.data.template_questions import TemplateLine
from shared.methods.answer_patterns import (
    context_frequencies,
    pattern_answer,
    template_answers,
)
from shared.methods.answer_spans import (
    Answer,
    Span,
    answer_record,
    best_answers,
    choose_threshold,
    span_scores,
)
from shared.methods.answer_windows import (
    END,
    FIRST,
    START,
    STOP,
    WINDOW,
    check_windows,
    question_windows,
)
from shared.models.loading import load_question_answerer, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.model_max_length = 32
    return tokenizer


TEXT = st.lists(
    st.sampled_from(["the", "data", "x7", "Batch", "issue.", " ", "été", "[SEP]", "\n"]),
    min_size=1,
    max_size=60,
).map(" ".join)


@st.composite
def asked(draw):
    context = draw(TEXT.filter(str.strip))
    words = [i for i, c in enumerate(context) if c.isalnum()]
    if not words or draw(st.booleans()):
        return Question(draw(TEXT), context)
    start = draw(st.sampled_from(words))
    stop = draw(st.sampled_from([i for i in words if start <= i < start + 20])) + 1
    return Question(draw(TEXT), context, (context[start:stop],), (start,))


@settings(max_examples=40)
@given(st.lists(asked(), min_size=1, max_size=4), st.integers(0, 7))
def test_windows_cover_the_context_and_lead_back_to_the_answer(tokenizer, rows, stride):
    windows = question_windows(rows, tokenizer, stride=stride)
    targets = np.array(windows.rows["labels"][:])
    assert targets[:, WINDOW].tolist() == list(range(len(targets)))
    assert max(windows.rows["length"][:]) <= 32
    assert np.unique(windows.question).tolist() == list(range(len(rows)))
    for number, row in enumerate(rows):
        own = np.flatnonzero(windows.question == number)
        covered = np.zeros(len(row.context), bool)
        for window in own:
            start, end, first, stop = targets[window, [START, END, FIRST, STOP]]
            offsets = windows.offsets[window]
            assert len(offsets) == stop - first
            ids = windows.rows[int(window)]["input_ids"][first:stop]
            assert tokenizer.sep_token_id not in ids  # that of the text is text
            for begin, after in offsets:
                covered[begin:after] = True
            if row.answers and end:
                piece = row.context[offsets[start - first][0] : offsets[end - first][1]]
                assert row.answers[0] in piece  # a token may be longer than the answer
        assert all(covered[i] for i, c in enumerate(row.context) if c.isalnum())
    # Logits that are sure of the targets give the answers.
    logits = np.zeros((len(targets), 40, 2))
    logits[np.arange(len(targets)), targets[:, START], 0] = 50
    logits[np.arange(len(targets)), targets[:, END], 1] = 50
    answers = best_answers(logits, windows, rows, max_answer_length=32)
    for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
        is_target = targets[windows.question == number, END] > 0
        if is_target.any():
            best = answer.spans[0]
            assert row.answers[0].strip() in best.text
            assert row.context[best.start : best.start + len(best.text)] == best.text
            assert best.score > 0.9 / is_target.sum()  # windows that hold it share it
        if not is_target.any():
            assert answer.text(0.0) == ""
            assert answer.no_answer_score > 0.99


def test_few_windows_without_the_answer_are_kept(tokenizer):
    long = "the data of a batch " * 20
    rows = [Question("the", long + "x7", ("x7",), (len(long),)), Question("the", long)]
    everything = question_windows(rows, tokenizer, stride=2)
    has_answer = np.array(everything.rows["labels"][:])[:, END] > 0
    assert has_answer.sum() == 1
    for most, expected in ((0, [1, 1]), (2, [3, 2])):
        windows = question_windows(rows, tokenizer, stride=2, empty_windows=most, seed=3)
        assert np.bincount(windows.question).tolist() == expected
        targets = np.array(windows.rows["labels"][:])
        assert targets[:, WINDOW].tolist() == list(range(len(targets)))
        assert (targets[:, END] > 0).sum() == 1


def test_models_that_cannot_read_windows_are_refused(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    model = load_question_answerer(str(tiny_model), tokenizer=tokenizer, new_head=True)
    check_windows(tokenizer, model, 64, 15)
    with pytest.raises(UserError, match="--stride 16: must be 0 to 15"):
        check_windows(tokenizer, model, 64, 16)
    with pytest.raises(UserError, match="--max_length 99"):
        check_windows(tokenizer, model, 99, 0)
    tokenizer.padding_side = "left"
    with pytest.raises(UserError, match="pads on the left"):
        check_windows(tokenizer, model, 64, 0)
    tokenizer.cls_token = "the"
    with pytest.raises(UserError, match=r"puts no \[CLS\] before a text"):
        check_windows(tokenizer, model, 64, 0)


@given(
    st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=12),
    st.integers(1, 15),
)
def test_all_spans_are_scored(logits, most):
    logits = np.array(logits)
    scores = span_scores(logits, most)
    for start in range(len(logits)):
        for length in range(scores.shape[1]):
            end = start + length
            expected = logits[start, 0] + logits[end, 1] if end < len(logits) else -np.inf
            assert scores[start, length] == pytest.approx(expected)


def test_scores_are_probabilities(tokenizer):
    rows = [Question("the", "data issue")]
    windows = question_windows(rows, tokenizer, stride=0)
    logits = np.random.default_rng(0).normal(size=(1, windows.rows[0]["length"], 2))
    (answer,) = best_answers(logits, windows, rows, max_answer_length=2, n_best=9)
    # data, issue and both.
    assert {span.text for span in answer.spans} == {"data", "issue", "data issue"}
    assert sum(s.score for s in answer.spans) + answer.no_answer_score == pytest.approx(1)
    expected = np.log(answer.no_answer_score / answer.spans[0].score)
    assert answer.margin == pytest.approx(expected)


@given(
    st.lists(
        st.tuples(st.sampled_from([-2.0, -1.0, 0.0, 1.5, 3.0, np.inf]), st.floats(0, 1)),
        min_size=1,
        max_size=10,
    ),
    st.data(),
)
def test_no_threshold_is_better_than_the_chosen_one(rows, data):
    has_answer = [data.draw(st.booleans()) and margin < np.inf for margin, _ in rows]
    questions = [
        Question("q", "c", ("c",), (0,)) if has else Question("q", "c") for has in has_answer
    ]
    answers = [
        Answer([Span("c", 0, 0.5)] if margin < np.inf else [], 0.5, margin) for margin, _ in rows
    ]
    scores = [score for _, score in rows]

    def mean(threshold):
        return sum(
            (score if has else 0) if answer.text(threshold) else (not has)
            for answer, score, has in zip(answers, scores, has_answer, strict=True)
        )

    threshold = choose_threshold(answers, scores, questions)
    if all(has_answer):
        assert threshold is None
    else:
        assert np.isfinite(threshold)
        assert all(mean(t) <= mean(threshold) + 1e-6 for t in (-9, -1.5, -0.5, 0.5, 2, 9))


def test_a_record_says_what_is_answered():
    answer = Answer([Span("x", 3, 0.2), Span("y", 9, 0.1)], 0.6, 1.0)
    assert answer_record(answer, 2.0) == {
        "answer": "x",
        "start": 3,
        "score": 0.2,
        "no_answer_score": 0.6,
        "best": [
            {"text": "x", "start": 3, "score": 0.2},
            {"text": "y", "start": 9, "score": 0.1},
        ],
    }
    record = answer_record(answer, 0.5)
    assert (record["answer"], record["start"], record["score"]) == ("", None, 0.6)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("How many cats does Ada have?", "14"),
        ("When was the bridge of Rome built?", "May 1920"),
        ("Who built the bridge of Rome?", "Grace Hopper"),
        ("Of what colour is the sky?", "very deep blue"),
    ],
)
def test_patterns_find_the_form_that_is_asked_for(question, expected):
    context = (
        "Ada has 14 cats. The old bridge of Rome was built in May 1920 by Grace Hopper. "
        "The sky is of a very deep blue."
    )
    counts = context_frequencies([context, "Nothing of the kind."])
    answer = pattern_answer(Question(question, context), frequencies=counts, n_contexts=2)
    assert answer == expected


def test_patterns_of_a_template():
    line = TemplateLine("Python version", ("Which?",), (), (), r"(?i)python (\d+)")
    rows = [
        Question("Which?", "- Python version: 3"),
        Question("Which?", "I use Python 4"),
        Question("Another?", "- Python version: 3"),
    ]
    assert template_answers(rows, [line], strict=True) == ["3", "", ""]
    assert template_answers(rows, [line], strict=False) == ["", "4", ""]
