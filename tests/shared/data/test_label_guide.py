"""The label guide: its forms, and what is wrong with a file that has another one."""

import pytest

from shared.cli.errors import UserError
from shared.data import GuideEntry, read_label_guide

GUIDE = """
bug:
  definition: It does not work.
  examples:
    - the tokenizer drops a word
    - "Error: none"
question: How to do something.
"010":
"no": {examples: one text}
"""


def test_a_label_has_a_definition_and_examples_or_less(tmp_path):
    path = tmp_path / "guide.yaml"
    path.write_text(GUIDE)
    guide = read_label_guide(str(path))
    assert [*guide] == ["bug", "question", "010", "no"]  # the order of the file
    examples = ("the tokenizer drops a word", "Error: none")
    assert guide["bug"] == GuideEntry("It does not work.", examples)
    assert guide["question"] == GuideEntry("How to do something.")
    assert guide["010"] == GuideEntry()
    assert guide["no"] == GuideEntry("", ("one text",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected lines of 'label: definition'"),
        ("- bug\n", "expected lines of 'label: definition'"),
        ("bug: [a, b]\n", "label 'bug': expected a definition, or definition and examples"),
        ("bug: {meaning: x}\n", "label 'bug': there is no 'meaning'; write definition and exam"),
        ("bug: {definition: [x]}\n", "label 'bug': the definition must be a text"),
        ("bug: {examples: [Error: x]}\n", "label 'bug': the examples must be a list of texts; put"),
        ("bug: x\nbug: y\n", "not valid YAML: line 2: 'bug' is there a second time"),
        ("' ': x\n", "' ' is no name of a label"),
    ],
)
def test_mistakes_name_the_file_and_the_label(text, message, tmp_path):
    path = tmp_path / "guide.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_label_guide(str(path))
    assert str(error.value).startswith(f"--guide {path}")
    assert message in str(error.value)


def test_a_guide_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"--guide .*none.yaml: No such file"):
        read_label_guide(str(tmp_path / "none.yaml"))
