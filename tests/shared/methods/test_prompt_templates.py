"""Templates and verbalizers: the forms of the file, and what is wrong with other ones."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.methods import PromptTemplates, read_prompt_templates

NAMES = ["Sci/Tech", "World"]
DEFAULT = ["{text}\nTopic: {label}"]
FILE = """
instruction: Classify the news into {labels}.
templates:
  - "{text}\\nThis is about {label}"
  - "News: {text}\\nTopic: {label}"
verbalizer:
  World: [politics, " war ", war]
  Sci/Tech: technology
"""


def write(tmp_path, text):
    path = tmp_path / "prompts.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_gives_templates_words_by_label_and_the_instruction(tmp_path):
    prompts = read_prompt_templates(write(tmp_path, FILE), NAMES, "{label}", DEFAULT)
    templates = ("{text}\nThis is about {label}", "News: {text}\nTopic: {label}")
    words = (("technology",), ("politics", "war"))  # in the order of the labels
    instruction = "Classify the news into technology and politics."
    assert prompts == PromptTemplates(templates, words, instruction)


def test_names_of_labels_and_default_templates_take_the_place_of_what_is_not_there(tmp_path):
    names = ["good_first-issue", "bug", "wontfix"]
    words = (("good first issue",), ("bug",), ("wontfix",))
    actual = read_prompt_templates(None, names, "{label}", DEFAULT)
    assert actual == PromptTemplates(tuple(DEFAULT), words)
    path = write(tmp_path, "templates: '{mask}: {text}'\ninstruction: 'One of {labels}'")
    actual = read_prompt_templates(path, names, "{mask}", [])
    instruction = "One of good first issue, bug and wontfix"
    assert actual == PromptTemplates(("{mask}: {text}",), words, instruction)


@given(
    st.dictionaries(
        st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=5),
        st.lists(st.from_regex(r"[a-zé ]*[a-zé]", fullmatch=True), min_size=1, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_what_yaml_can_write_is_read_again(tmp_path_factory, verbalizer):
    """Each label gets its words in their order, or the error names a word of two labels."""
    names = list(verbalizer)
    content = yaml.safe_dump({"verbalizer": verbalizer}, allow_unicode=True)
    path = write(tmp_path_factory.mktemp("prompts"), content)
    stripped = [tuple(dict.fromkeys(map(str.strip, verbalizer[name]))) for name in names]
    all_words = [word for words in stripped for word in words]
    if len({*all_words}) < len(all_words):
        with pytest.raises(UserError, match="stands for"):
            read_prompt_templates(path, names, "{label}", DEFAULT)
    else:
        prompts = read_prompt_templates(path, names, "{label}", DEFAULT)
        assert prompts.words == tuple(stripped)


@pytest.mark.parametrize(
    ("text", "slot", "message"),
    [
        ("", "{label}", ": expected the keys instruction, templates, verbalizer"),
        ("- a", "{label}", ": expected the keys"),
        ("a: [", "{label}", ": not valid YAML"),
        ("verbaliser: {}", "{label}", ": there is no key 'verbaliser'; there are instruction"),
        ("templates: []", "{label}", ", templates: expected a text, or a list of texts"),
        ("templates: {a: b}", "{label}", ", templates: expected a text"),
        ("templates: ['{text} {label}', ' ']", "{label}", ", number 2: must hold {text} once"),
        (
            "templates: ['{text} {label}', 'It is {label}']",
            "{label}",
            ", templates, number 2: must hold {text} once; it holds it 0 times",
        ),
        ("templates: '{text} is'", "{mask}", "number 1: must hold {mask} once; it holds it 0"),
        ("templates: '{text} {text} {mask}'", "{mask}", "must hold {text} once; it holds it 2"),
        ("templates: '{text} {x} {mask}'", "{mask}", "there is no place {x}; there are {text} and"),
        ("templates: '{text} {mask} {label}'", "{label}", "there is no place {mask}"),
        ("templates: '{label}: {text}'", "{label}", "must end with {label}, since the model"),
        ("verbalizer: [a]", "{label}", ", verbalizer: expected lines of 'label: word'"),
        ("verbalizer: {World: a}", "{label}", "verbalizer: the label 'Sci/Tech' is missing"),
        (
            "verbalizer: {World: a, Sci/Tech: b, Sport: c}",
            "{label}",
            "there is no label 'Sport' (there are Sci/Tech, World)",
        ),
        ("verbalizer: {World: a, Sci/Tech: []}", "{label}", "label 'Sci/Tech': expected a text"),
        ("verbalizer: {World: a, Sci/Tech: '?'}", "{label}", "'?' has no letter or digit"),
        (
            "verbalizer: {World: a, Sci/Tech: [b, a]}",
            "{label}",
            "'a' stands for 'Sci/Tech' and for 'World'",
        ),
        ("instruction: [a]", "{label}", ", instruction: expected a text"),
        ("instruction: 'About {text}'", "{label}", ", instruction: there is no place {text}"),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path, text, slot, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read_prompt_templates(
            path, NAMES, slot, DEFAULT if slot == "{label}" else ["{text} {mask}"]
        )
    assert "\n" not in str(error.value)
    assert path in str(error.value)


def test_a_missing_file_is_named():
    with pytest.raises(UserError, match=r"--prompts missing.yaml: No such file"):
        read_prompt_templates("missing.yaml", NAMES, "{label}", DEFAULT)


def test_a_label_whose_name_is_no_word_needs_one():
    with pytest.raises(UserError, match=r"verbalizer, label '--': '' has no letter"):
        read_prompt_templates(None, ["--", "bug"], "{label}", DEFAULT)
