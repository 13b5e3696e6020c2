import json
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.data.questions import (
    Question,
    QuestionArguments,
    load_questions,
    read_questions,
    split_questions,
)
from shared.data.template_questions import (
    load_template_questions,
    read_template,
    template_questions,
)


@dataclass
class Arguments(QuestionArguments):
    seed: int = 0
    template: str = ""
    questions_per_text: int = 1


def write(path, content):
    if isinstance(content, list):
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_text(content, encoding="utf-8")
    return str(path)


def row(context="Ada has 4 cats.", question="How many?", **cells):
    return {"context": context, "question": question, **cells}


WORDS = st.lists(
    st.sampled_from(["red", "green", "blue", "4", "42", "été", "猫"]), min_size=1, max_size=8
)


@st.composite
def questions(draw):
    """A question with up to two answers, which are pieces of its context."""
    context = " ".join(draw(WORDS))
    spans = []
    for _ in range(draw(st.integers(0, 2))):
        start = draw(st.integers(0, len(context) - 1))
        stop = draw(st.integers(start + 1, len(context)))
        piece = context[start:stop]
        if piece.strip():
            spans.append((piece.strip(), start + len(piece) - len(piece.lstrip())))
    return Question(
        "Which?", context, tuple(text for text, _ in spans), tuple(start for _, start in spans)
    )


@settings(max_examples=40)
@given(st.lists(questions(), min_size=1, max_size=4))
def test_all_forms_of_a_file_give_the_same_questions(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("questions")
    objects = [
        [{"text": t, "answer_start": s} for t, s in zip(q.answers, q.starts, strict=True)]
        for q in rows
    ]
    flat = [
        row(q.context, q.text, answers=answers) for q, answers in zip(rows, objects, strict=True)
    ]
    lists = [
        row(q.context, q.text, answers={"text": q.answers, "answer_start": q.starts}) for q in rows
    ]
    squad = {
        "version": "v2.0",
        "data": [
            {
                "title": "One",
                "paragraphs": [
                    {
                        "context": q.context,
                        "qas": [
                            {
                                "question": q.text,
                                "answers": answers,
                                "is_impossible": not answers,
                                "plausible_answers": [{"text": "red", "answer_start": 0}],
                            }
                        ],
                    }
                    for q, answers in zip(rows, objects, strict=True)
                ],
            }
        ],
    }
    expected = [(q.text, q.context, q.answers, q.starts) for q in rows]
    for name, content in (
        ("flat.jsonl", flat),
        ("lists.jsonl", lists),
        ("squad.json", json.dumps(squad)),
    ):
        path = write(folder / name, content)
        actual, notes = read_questions(Arguments(), path)
        assert [(q.text, q.context, q.answers, q.starts) for q in actual] == expected
        assert not notes


def test_answers_of_a_table_are_searched(tmp_path):
    path = write(
        tmp_path / "table.csv",
        "id,context,question,answer\n"
        "a,In 2014 Ada had 4 cats.,How many?,4\n"
        "b,4 cats and 4 dogs,How many?,4\n"
        "c,No number here,How many?,\n"
        "d,Ada has 5 cats,How many?,4\n",
    )
    (first, second, third), notes = read_questions(Arguments(), path)
    assert (first.id, first.answers, first.starts) == ("a", ("4",), (16,))  # not that of 2014
    assert second.starts == (0,)
    assert third.answers == ()
    assert third.references == [""]
    assert any("1 questions left out" in note and "row 4" in note for note in notes)
    assert any("several places" in note and "row 2" in note for note in notes)


def test_a_wrong_start_is_mended(tmp_path):
    cells = {"answers": [{"text": "4", "answer_start": 9}]}
    path = write(tmp_path / "moved.jsonl", [row("4 cats, 4 dogs", **cells)])
    (question,), (note,) = read_questions(Arguments(), path)
    assert question.starts == (8,)
    assert "does not stand at answer_start" in note


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(answers=[{"text": "4"}])], "row 1: answers: an object must have 'text' and 'answer"),
        ([row(answers={"text": ["4"], "answer_start": []})], "1 texts, but 0 starts"),
        ([row(answers={"text": "4", "answer_start": "x"})], "answer_start must be a whole number"),
        (
            [row(answers=[{"text": " ", "answer_start": 1}])],
            "an answer must be text, and not blank",
        ),
        ([row(answers=[]), row(context=" ", answers=[])], "row 2: context must be text"),
        ([row(question=None, answers=[])], "row 1: question must be text"),
        ([row(answer_text="4")], "no column 'answers'"),
        ([row(answers=["5"])], "no question to use; 1 questions left out"),
        ([{"title": "x", "paragraphs": [{"context": "x"}]}], "a list 'qas'"),
    ],
)
def test_a_mistake_in_a_row_names_it(rows, message, tmp_path):
    with pytest.raises(UserError, match=r"rows\.jsonl.*" + message.replace("(", r"\(")):
        read_questions(Arguments(), write(tmp_path / "rows.jsonl", rows))


def test_answers_need_not_be_there_to_be_found(tmp_path):
    path = write(tmp_path / "rows.jsonl", [row()])
    ((question,), notes) = read_questions(Arguments(), path, answers_required=False)
    assert (question.text, question.answers, notes) == ("How many?", (), [])


@settings(max_examples=15)
@given(
    st.lists(st.integers(0, 8), min_size=12, max_size=40).filter(lambda x: len(set(x)) > 5),
    st.integers(0, 3),
)
def test_no_context_is_in_two_parts(contexts, seed):
    rows = [Question(f"{i}?", "word " * 3 + f"context {c}") for i, c in enumerate(contexts)]
    args = Arguments(seed=seed, valid_size=0.2, test_size=0.2)
    split = split_questions(rows, args, held_out={}, source="")
    again = split_questions(rows, args, held_out={}, source="")
    parts = [{q.context for q in part} for part in split.parts.values()]
    assert split.parts == again.parts
    assert sorted(q.text for part in split.parts.values() for q in part) == sorted(
        q.text for q in rows
    )
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert all(parts)


def test_contexts_of_held_out_files_are_left_out(tmp_path):
    text = "one two three four five six seven eight nine ten eleven twelve"
    data = [row(text, answers=["one"])]
    data += [row(f"context of number {i}", answers=["context"]) for i in "abcdefgh"]
    test = [row(f"{text}.", answers=["two"])]  # nearly the same
    args = Arguments(
        data=write(tmp_path / "train.jsonl", data),
        test_data=write(tmp_path / "test.jsonl", test),
        valid_size=0.2,
    )
    questions = load_questions(args)
    assert [q.answers for q in questions.parts["test"]] == [("two",)]
    assert {q.answers for part in ("train", "valid") for q in questions.parts[part]} == {
        ("context",)
    }
    assert "note: 1 questions left out: their context is in a held-out file" in questions.describe()
    with pytest.raises(UserError, match="no question is left to learn from"):
        load_questions(Arguments(data=args.test_data, test_data=args.test_data))


TEMPLATE = """
Python version:
  questions: ["Which Python?"]
  forms: ["python {} here", "py={}"]
  test_forms: ["on Python {}!"]
  pattern: '(?i)python (\\d\\.\\d+)'
"""


def issue(number, version):
    return {
        "title": f"Error {number} in {'abcdefghijklmnopqrstuvwxyz'[number % 26] * 5}",
        "body": f"It fails {number * 7} times.\r\n- Python version: {version}  \r\n- Other: x\n",
    }


def test_a_template_gives_questions_on_its_lines(tmp_path):
    template = read_template(write(tmp_path / "template.yaml", TEMPLATE))
    texts = [issue(i, f"3.{i}")["body"] for i in range(200)] + ["nothing to ask"]
    seen = set()
    for for_test, forms in ((False, ("python {} here", "py={}")), (True, ("on Python {}!",))):
        rows = template_questions(
            texts, template, for_test=for_test, seed=1, numbers=range(len(texts))
        )
        assert len(rows) == 200
        for number, question in enumerate(rows):
            if not question.answers:
                assert template[0].search(question.context) is None
                assert f"3.{number}\n" not in question.context
                seen.add("none")
                continue
            (answer,), (start,) = question.answers, question.starts
            assert answer == f"3.{number}"
            assert question.context[start:].startswith(answer)
            written = [form.replace("{}", answer) for form in forms]
            is_template = template[0].search(question.context) is not None
            # In one form only: else there would be two places to find it.
            assert is_template + sum(form in question.context for form in written) == 1
            seen.add((for_test, is_template))
    assert seen == {"none", *((a, b) for a in (True, False) for b in (True, False))}


def test_texts_of_a_template_are_split_before_they_are_rewritten(tmp_path):
    rows = [issue(i, f"3.{i}") for i in range(60)]
    args = Arguments(
        data=write(tmp_path / "issues.jsonl", rows),
        template=write(tmp_path / "template.yaml", TEMPLATE),
        cache_dir=str(tmp_path / "cache"),
    )
    questions = load_template_questions(args)
    contexts = {part: " ".join(q.context for q in rows) for part, rows in questions.parts.items()}
    assert sum(map(len, questions.parts.values())) == 60
    assert " here" in contexts["train"]
    assert "on Python" not in contexts["train"] + contexts["valid"]
    assert "py=" not in contexts["test"]
    args.template = write(tmp_path / "other.yaml", TEMPLATE.replace("Python version", "Colour"))
    with pytest.raises(UserError, match=r"no text has a line of the template \(Colour\)"):
        load_template_questions(args)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("questions:", "question:", "expected questions, forms, test_forms, pattern"),
        ("on Python {}!", "on Python!", "each text of test_forms needs one {}"),
        ("(\\d\\.\\d+)", "\\d", "needs one group, the value, not 0"),
        ("(\\d\\.\\d+)", "(\\d", "no regular expression"),
        ('["Which Python?"]', "[]", "questions must be a list of texts"),
        (TEMPLATE, "- a\n- b\n", "expected names of lines"),
    ],
)
def test_a_mistake_in_a_template_is_named(old, new, message, tmp_path):
    path = write(tmp_path / "template.yaml", TEMPLATE.replace(old, new))
    with pytest.raises(UserError, match="--template .*template.yaml.*" + message):
        read_template(path)
