import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from shared.data.arguments import SplitArguments, TaggingArguments
from shared.methods.word_pipelines import WordArguments
from shared.reports.cards import TaggerCard, command_line, write_model_card

FIELDS = {
    "title": "my tagger",
    "base_model": "owner/encoder",
    "description": "Gives a text labels.",
    "data": "120 rows | with : signs\n# not a heading",
    "label_names": ["bug", "help wanted", "c++: yes"],
    "metrics": {"test_micro_f1": 0.81234, "test_macro_f1": 0.5},
    "report": "label  f1\nbug    0.8",
    "usage": "```python\nprint(1)\n```",
    "limits": "Few rows.",
}


def card(tmp_path, **changes):
    write_model_card(tmp_path, **FIELDS | changes)
    return ModelCard.load(tmp_path / "README.md")


def test_the_hub_can_read_the_metadata(tmp_path):
    data = card(tmp_path).data
    assert data.base_model == "owner/encoder"
    assert data.to_dict()["library_name"] == "transformers"
    assert data.pipeline_tag == "text-classification"
    assert data.model_name == "my tagger"
    metrics = {result.metric_type: result.metric_value for result in data.eval_results}
    assert metrics == {"test_micro_f1": 0.8123, "test_macro_f1": 0.5}


def test_a_folder_is_not_named_as_the_base_model(tmp_path, tiny_model):
    assert card(tmp_path, base_model=str(tiny_model)).data.base_model is None
    assert str(tiny_model) not in (tmp_path / "README.md").read_text().split("## Command")[0]


@pytest.mark.parametrize("title", ["a: b", "'quoted' \"twice\"", "- x", "🙂 #1", "yes"])
def test_any_title_makes_valid_metadata(tmp_path, title):
    assert card(tmp_path, title=title).data.model_name == title


@pytest.mark.parametrize(
    "flag", [["--resume_from_checkpoint", "true"], ["--resume_from_checkpoint=true"]]
)
def test_the_command_of_a_resumed_run_is_that_of_the_whole_run(flag, monkeypatch):
    flags = ["--data", "a.jsonl", *flag, "--refit", "true"]
    monkeypatch.setattr(sys, "argv", ["recipes/github_tagger.py", *flags])
    assert command_line().endswith("github_tagger.py --data a.jsonl --refit true")


def test_the_card_has_every_part(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["recipes/github_tagger.py", "--data", "my file.jsonl"])
    monkeypatch.chdir(tmp_path)
    text = card(tmp_path).text
    assert "# my tagger\n\nGives a text labels." in text
    assert "Labels: `bug`, `help wanted`, `c++: yes`." in text
    assert "| test micro F1 | 0.812 |" in text
    assert "```\n120 rows | with : signs\n# not a heading\n```" in text
    assert "```\nlabel  f1\nbug    0.8\n```" in text
    assert "```python\nprint(1)\n```" in text
    assert "Few rows." in text
    assert "accelerate launch recipes/github_tagger.py --data 'my file.jsonl'" in text
    assert re.search(r"on (CPU, \d+ threads|\d+ x ).*, Python 3\.\d+\.\d+, torch 2\.", text)


def test_an_error_while_writing_keeps_the_old_card(tmp_path):
    card(tmp_path)
    with pytest.raises(TypeError):
        card(tmp_path, title="new", metrics={"test_micro_f1": "no number"})
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert "# my tagger" in (tmp_path / "README.md").read_text()


def test_the_command_can_be_pasted_into_a_shell(monkeypatch, tmp_path):
    script = tmp_path / "a folder" / "recipes" / "x.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--labels", "a b", "--x", "it's"])
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command_line())
    assert words[:2] == ["accelerate", "launch"]
    assert Path(words[2]) == Path("a folder/recipes/x.py")
    assert words[3:] == ["--labels", "a b", "--x", "it's"]


def test_the_default_model_has_its_name_on_the_hub(tmp_path):
    data = card(tmp_path, base_model="all-MiniLM-L6-v2").data
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"


def test_the_metadata_names_licence_language_and_data_set(tmp_path):
    data = card(tmp_path, license="mit", language="de", dataset="owner/texts").data
    assert (data.license, data.language, data.datasets) == ("mit", "de", ["owner/texts"])
    plain = card(tmp_path).data.to_dict()
    assert not {"license", "language", "datasets"} & plain.keys()


def test_the_card_of_a_tagger_shows_the_settings_of_its_method():
    @dataclass
    class Flags(TaggingArguments, WordArguments, SplitArguments):
        output_dir: str = "out"
        seed: int = 7

    settings = TaggerCard(Flags(data="my.jsonl", license="mit", min_df=5))._settings()
    assert settings["classifier"] == "naive_bayes"
    assert (settings["min_df"], settings["seed"]) == (5, 7)
    assert not {"data", "output_dir", "license", "learning_rate"} & settings.keys()
