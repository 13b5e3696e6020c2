from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.languages import SURE, detect_languages

SENTENCES = {
    "en": "The model crashes when I load the data set for the second time.",
    "de": "Das Programm stürzt ab, wenn ich die Daten ein zweites Mal lade.",
    "fr": "Le programme plante quand je charge les données une deuxième fois.",
    "ru": "Программа падает, когда я загружаю данные во второй раз.",
    "zh": "当我第二次加载数据集时程序崩溃了",
}


def test_sentences_are_in_their_language():
    languages = detect_languages(SENTENCES.values())
    assert [code for code, _ in languages] == [*SENTENCES]
    assert all(probability >= SURE for _, probability in languages)


def test_only_the_beginning_is_read():
    long = "The model crashes when I load the data. " * 40 + SENTENCES["zh"] * 1000
    ((language, probability),) = detect_languages([long])
    assert language == "en"
    assert probability > 0.9


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["", "\n", "\U0001f600"]) | st.text(max_size=30), max_size=3))
def test_any_text_has_a_language_and_a_probability(texts):
    languages = detect_languages(texts)
    assert len(languages) == len(texts)
    assert all(code.isalpha() and 0 <= probability <= 1 for code, probability in languages)
