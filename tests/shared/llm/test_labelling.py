import asyncio

import numpy as np
import pytest

from shared.llm.answers import AnswerFormat
from shared.llm.budget import BudgetSpent
from shared.llm.endpoint import Completion, NoAnswer
from shared.llm.labelling import Labelling, ask_for_labels

ONE = AnswerFormat(("bug", "docs"), multilabel=False)
SEVERAL = AnswerFormat(("bug", "docs"), multilabel=True)


class Script:
    """An end point that answers as a function of the conversation and of the sample says."""

    def __init__(self, answer):
        self.answer, self.conversations = answer, []

    async def complete(self, messages, sample):
        self.conversations.append(list(messages))
        await asyncio.sleep(0)
        answer = self.answer(messages, sample)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, Completion) else Completion(answer)


def ask(script, texts, answers=ONE, *, samples=1, attempts=3):
    counted = []
    labelling = asyncio.run(
        ask_for_labels(
            *(script, lambda i: texts[i], len(texts), answers),
            samples=samples,
            attempts=attempts,
            concurrency=2,
            on_answer=lambda: counted.append(1),
        )
    )
    assert len(counted) == len(texts) * samples
    return labelling


def test_shares_of_the_samples_are_scores():
    votes = {"a": ["bug"] * 4, "b": ["bug", "docs", "docs", "docs"]}
    labelling = ask(Script(lambda m, sample: votes[m[0]["content"]][sample]), "ab", samples=4)
    assert labelling.scores.tolist() == [[1, 0], [0.25, 0.75]]
    assert labelling.problems == ["", "answers differ"]
    chosen, confidence = labelling.choose(multilabel=False)
    assert chosen.tolist() == [[True, False], [False, True]]
    assert confidence.tolist() == [1, 0.75]


def test_several_labels_and_none():
    votes = {"a": ['["bug", "docs"]', '["bug"]', '["bug"]'], "b": ["[]"] * 3}
    script = Script(lambda m, sample: votes[m[0]["content"]][sample])
    labelling = ask(script, "ab", SEVERAL, samples=3)
    assert labelling.scores == pytest.approx(np.array([[1, 1 / 3], [0, 0]]))
    chosen, confidence = labelling.choose(multilabel=True)
    assert chosen.tolist() == [[True, False], [False, False]]
    assert confidence == pytest.approx([2 / 3, 1])
    assert labelling.answered.all()


def test_an_invalid_answer_is_asked_again_with_the_complaint():
    script = Script(lambda messages, _: "typo" if len(messages) == 1 else "docs")
    assert ask(script, ["a"]).scores.tolist() == [[0, 1]]
    first, second = script.conversations
    assert first == [{"role": "user", "content": "a"}]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert second[1]["content"] == "typo"
    complaint = second[2]["content"]
    assert complaint.startswith('There is no label "typo". The labels are: bug, docs. Answer')


@pytest.mark.parametrize(
    ("answer", "n_asked", "problem"),
    [
        (Completion("typo"), 3, "no valid answer"),
        (Completion("bug", "cut off"), 3, "no valid answer"),
        (Completion("", "refused"), 1, "refused"),
        (NoAnswer("status 400, too long"), 1, "status 400, too long"),
        (BudgetSpent(), 1, "not asked: the budget is spent"),
    ],
)
def test_texts_that_stay_without_labels(answer, n_asked, problem):
    script = Script(lambda *_: answer)
    labelling = ask(script, ["a"])
    assert len(script.conversations) == n_asked
    assert labelling.problems == [problem]
    assert not labelling.answered.any()
    assert labelling.not_asked.tolist() == [isinstance(answer, BudgetSpent)]
    chosen, confidence = labelling.choose(multilabel=False)
    assert not chosen.any()
    assert np.isnan(confidence).all()


def test_a_text_with_some_samples_only():
    script = Script(lambda _, sample: ["bug", "typo", "bug"][sample])
    labelling = ask(script, ["a"], samples=3, attempts=1)
    assert labelling.scores.tolist() == [[1, 0]]
    assert labelling.problems == ["answers differ"]
    # Where the budget ends within a text, the next run asks for the rest.
    script = Script(lambda _, sample: ["bug", BudgetSpent(), "bug"][sample])
    labelling = ask(script, ["a"], samples=3)
    assert labelling.not_asked.all()
    assert not labelling.answered.any()


def test_the_confidence_of_several_labels_is_that_of_the_least_sure_one():
    labelling = Labelling(np.array([[0.9, 0.6, 0.2], [np.nan] * 3]), ["", "refused"])
    chosen, confidence = labelling.choose(multilabel=True)
    assert chosen.tolist() == [[True, True, False], [False] * 3]
    assert confidence[0] == pytest.approx(0.6)


def test_an_error_ends_all_workers():
    script = Script(lambda m, _: RuntimeError("wrong") if m[0]["content"] == "c" else "bug")
    with pytest.raises(RuntimeError, match="wrong"):
        asyncio.run(
            ask_for_labels(
                *(script, lambda i: "abc"[min(i, 2)], 100, ONE),
                samples=1,
                attempts=1,
                concurrency=3,
                on_answer=lambda: None,
            )
        )
    assert len(script.conversations) < 20
