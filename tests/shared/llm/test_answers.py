import pytest

from shared.llm.answers import AnswerFormat

ONE = AnswerFormat(("bug", "docs", "Feature request"), multilabel=False)
SEVERAL = AnswerFormat(("bug", "docs", "Feature request"), multilabel=True)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"label": "docs"}', [1]),
        ('Sure!\n```json\n{"label": "docs"}\n```\nAnything else?', [1]),
        ("{'label': 'docs'}", [1]),
        ('{"labels": ["docs"]}', [1]),
        ("docs", [1]),
        ('"Docs".', [1]),
        ('{"label": "FEATURE REQUEST "}', [2]),
        ('<think>It is {"label": "bug"}? No.</think>{"label": "docs"}', [1]),
        ('I think {"label": "docs"} is right, since the docs are meant.', [1]),
    ],
)
def test_one_label_is_read(answer, expected):
    assert ONE.read(answer) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('{"labels": ["docs", "bug", "docs"]}', [0, 1]),
        ('{"labels": []}', []),
        ("{'labels': ['bug', 'docs']}", [0, 1]),
        ('```\n["bug"]\n```', [0]),
        ('{"labels": "bug"}', [0]),
    ],
)
def test_several_labels_are_read(answer, expected):
    assert SEVERAL.read(answer) == expected


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ('{"label": "typo"}', 'There is no label "typo"'),
        ('{"label": ["bug", "docs"]}', "2 labels in the answer; give exactly one"),
        ('{"label": null}', "There is no label null"),
        ('{"label": {"a": 1}}', "There is no label"),
        ('{"label": 1}', "There is no label 1"),
        ('{"answer": "bug"}', "no key 'label'"),
        ('{"label": "bu', "There is no label"),
        ("", "There is no label"),
        ("bug, or rather docs", "There is no label"),
        ("[" * 100_000, "There is no label"),
    ],
)
def test_what_cannot_be_read_is_a_complaint(answer, complaint):
    with pytest.raises(ValueError, match=complaint) as error:
        ONE.read(answer)
    assert len(str(error.value)) < 120


def test_labels_that_differ_in_case_are_not_mixed_up():
    answers = AnswerFormat(("it", "IT"), multilabel=False)
    assert answers.read('{"label": "IT"}') == [1]
    with pytest.raises(ValueError, match="no label"):
        answers.read('{"label": "It"}')


@pytest.mark.parametrize("answers", [ONE, SEVERAL])
def test_what_is_written_is_read(answers):
    assert answers.read(answers.write(["docs"])) == [1]


def test_the_schema_allows_nothing_but_labels():
    name = {"type": "string", "enum": ["bug", "docs", "Feature request"]}
    assert ONE.schema["properties"] == {"label": name}
    assert SEVERAL.schema["properties"] == {"labels": {"type": "array", "items": name}}
    # What OpenAI wants of a strict schema.
    for answers in (ONE, SEVERAL):
        assert answers.schema["required"] == list(answers.schema["properties"])
        assert answers.schema["additionalProperties"] is False
