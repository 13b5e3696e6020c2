"""Titles of texts, and their embeddings."""

import numpy as np
import pytest

from shared.methods.titles import TitledEmbedder, have_titles, split_title, titles


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Crash on start\n\nIt crashes.", ("Crash on start", "It crashes.")),
        ("Crash on start", ("Crash on start", "")),
        ("\n Crash on start \n", ("Crash on start", "")),
        (
            "owner/name\n\nCrash on start\n\nIt crashes.",
            ("owner/name Crash on start", "It crashes."),
        ),
        ("word", ("word", "")),
        ("", ("", "")),
    ],
)
def test_the_first_line_of_a_text_is_its_title(text, expected):
    assert split_title(text) == expected


def test_a_title_is_cut_after_200_characters():
    assert titles(["a b " * 100, "one two\nthree"]) == [("a b " * 100)[:200], "one two"]


def test_texts_have_titles_if_half_of_them_do():
    with_title, without = "a title\nand text", "one line of text"
    assert have_titles([with_title, without])
    assert not have_titles([with_title, without, without])
    assert not have_titles(["a long first line " * 20 + "\nand text"])
    assert not have_titles([])


def test_vectors_of_titles_follow_those_of_texts():
    def lengths(texts):
        return np.array([[len(text), 1.0] for text in texts])

    vectors = TitledEmbedder(lengths, 0.5)(["a b\nc", "a b c"])
    assert vectors.tolist() == [[5, 1, 1.5, 0.5], [5, 1, 2.5, 0.5]]
