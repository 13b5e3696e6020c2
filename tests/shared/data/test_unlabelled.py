"""Tests of the unlabelled texts that a recipe trains on."""

import json

import pytest

from shared.cli.errors import UserError
from shared.data.corpus import load_data, load_held_out
from shared.data.splits import split_corpus
from shared.data.unlabelled import UnlabelledArguments, load_unlabelled


@pytest.fixture
def load(tmp_path):
    """`load(rows, **flags)` returns split and unlabelled texts; file flags also take rows."""

    def run(rows, seed=0, **flags):
        for name, value in {"data": rows, **flags}.items():
            if isinstance(value, list) and name.endswith("data"):
                lines = (json.dumps({"text": text, "labels": labels}) for text, labels in value)
                (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
                flags[name] = str(tmp_path / f"{name}.jsonl")
        args = UnlabelledArguments(**flags, cache_dir=str(tmp_path / "cache"))
        corpus = load_data(args)
        split = split_corpus(corpus, load_held_out(args, corpus), args, seed=seed)
        return split, load_unlabelled(split, args, seed=seed)

    return run


def words(name):
    """Return a text of six words that no other name shares."""
    return " ".join(f"{name}{i}" for i in range(6))


def labelled(n, labels="ab"):
    return [(words(f"text{i}x"), [labels[i % len(labels)]]) for i in range(n)]


def unlabelled(n):
    return [(words(f"more{i}x"), None) for i in range(n)]


def texts(result):
    return list(result.rows["text"])


def test_rows_without_a_label_and_rows_left_out_have_no_labels(load, capsys):
    split, result = load([*labelled(40), *unlabelled(10)], train_per_label=2)
    train, held_out = split.rows["train"]["text"], split.rows["test"]["text"]
    assert result.rows.column_names == ["text", "row", "words"]
    assert len(result.rows) == result.available == 10 + 16
    assert {text for text, _ in unlabelled(10)} < set(texts(result))
    assert not set(texts(result)) & {*train, *held_out, *split.rows["valid"]["text"]}
    assert capsys.readouterr().out == "unlabelled: 26 of 26 texts\n"


def test_draws_are_nested_and_depend_on_the_seed(load):
    rows = [*labelled(20), *unlabelled(30)]
    large, small = (texts(load(rows, max_unlabelled=n)[1]) for n in (20, 10))
    assert set(small) < set(large)
    assert small == texts(load(rows, max_unlabelled=10)[1])
    other = load(rows, max_unlabelled=10, seed=1)[1]
    assert set(texts(other)) != set(small)
    assert (len(other.rows), other.available) == (10, 30)


def test_texts_that_repeat_a_test_text_are_left_out_and_counted(load, capsys):
    test = [(words("held"), ["a"]), (words("out"), ["b"])]
    rows = [*labelled(20), *unlabelled(5), (words("held").upper(), None)]
    _, result = load(rows, test_data=test)
    assert sorted(texts(result)) == sorted(text for text, _ in unlabelled(5))
    assert result.metrics() == {"n_unlabelled": 5, "n_unlabelled_repeats": 1}
    assert "5 of 5 texts; left out: 1 that repeat a validation or test text" in (
        capsys.readouterr().out
    )


def test_a_file_of_its_own(load, capsys):
    test = [(words("held"), ["a"]), (words("out"), ["b"])]
    # The file has labels that --data does not have; they are not read.
    more = [(words("new"), ["c", "d"]), (words("newer"), None), (words("out").upper(), ["b"])]
    _, result = load([*labelled(20), *unlabelled(5)], test_data=test, unlabelled_data=more)
    assert texts(result) == [words("new"), words("newer")]
    assert result.repeats == 1
    with pytest.raises(UserError) as error:
        load(labelled(20), test_data=test, unlabelled_data=test)
    assert str(error.value) == (
        "--unlabelled_data has no unlabelled text to train on (2 repeat a validation or test "
        "text); add texts to the file"
    )


def test_without_unlabelled_texts(load):
    with pytest.raises(UserError) as error:
        load(labelled(20))
    assert str(error.value) == (
        "--data has no unlabelled text to train on; add rows without a label to --data, or name a "
        "file with --unlabelled_data"
    )


def test_every_class_needs_an_example(load):
    rows = [*labelled(40, "abcd"), *unlabelled(5)]
    with pytest.raises(UserError) as error:
        load(rows, train_size=2)
    message = str(error.value)
    assert message.startswith("the 2 training texts have no example of 2 of 4 classes: ")
    assert message.endswith(
        "; label some, raise --train_size, use --train_per_label, or leave classes out with "
        "--drop_labels"
    )


def test_a_label_of_several_may_lack_examples(load):
    rows = [*labelled(40, "abcd"), (words("both"), ["a", "b"]), *unlabelled(5)]
    split, result = load(rows, train_size=2)
    assert "note: no train text has the label" in split.describe()
    assert len(result.rows) > 5
