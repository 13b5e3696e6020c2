"""What --push_to_hub sends: tagger, card and results without texts, in one commit; no pickles."""

from argparse import Namespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import HTTPError

from shared.cli.errors import UserError
from shared.cli.launch import start_recipe
from shared.evaluation.rules import DecisionRule
from shared.reports.hub import published_files, push_to_hub
from shared.taggers.folder import TaggerContents, write_tagger
from shared.taggers.means import save_mean

RULE = DecisionRule((0.5, 0.25))


@pytest.fixture
def commits(monkeypatch):
    """Replace the hub; return the list of its commits: (repository, {file: content})."""
    commits = []

    class Hub:
        def __init__(self, token=None):
            assert token == "a token"

        def create_repo(self, name, *, private, exist_ok):
            assert exist_ok
            return Namespace(repo_id=f"someone/{name}")

        def create_commit(self, repository, operations, **_):
            files = {}
            for operation in operations:
                with operation.as_file() as file:
                    files[operation.path_in_repo] = file.read()
            commits.append((repository, files))
            return Namespace(commit_url="https://hub/commit")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return commits


def arguments(folder, **changes):
    hub = {"hub_model_id": None, "hub_token": "a token", "hub_private_repo": None}
    return Namespace(
        output_dir=str(folder), **{"push_to_hub": True, "hub_revision": None, **hub, **changes}
    )


def make_tagger(folder):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"weights": np.zeros((2, 3))}
    write_tagger(folder, TaggerContents("words", ["a", "b"], RULE, arrays=arrays, words=["x"]))


def make_run(folder):
    """Write what a run leaves, with files that must stay here."""
    make_tagger(folder)
    others = ("metrics.json", "per_label.csv", "test_predictions.jsonl", "training_args.bin")
    for name in (*others, "plots/curve.png", "checkpoint-3/optimizer.pt", "cells/a/tagger.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    card = f'from shared.taggers import load_tagger\nload_tagger("{folder}")\nmodel="{folder}"\n'
    (folder / "README.md").write_text(card)
    page = '<p>figures</p><script type="application/json" id="rows">{"text": "secret"}</script>'
    (folder / "report.html").write_text(page)


RESULTS = {"metrics.json", "per_label.csv", "plots/curve.png"}
TAGGER = {"tagger.json", "tagger.safetensors", "words.json"}


def test_one_commit_has_tagger_card_metrics_and_plots(tmp_path, commits, capsys):
    folder = tmp_path / "mine"
    args = arguments(folder)
    assert start_recipe(args) == folder
    make_run(folder)
    push_to_hub(folder, args)
    ((repository, files),) = commits
    assert repository == "someone/mine"
    assert files.keys() == {*RESULTS, *TAGGER, "README.md", "report.html"}
    report = files["report.html"].decode()
    assert "figures" in report
    assert "secret" not in report
    assert files["tagger.json"] == (folder / "tagger.json").read_bytes()
    # The card's examples load the model from the hub.
    card = files["README.md"].decode()
    assert str(folder) not in card
    assert 'load_tagger(snapshot_download("someone/mine"))\nmodel="someone/mine"' in card
    assert "Uploaded 8 files: https://hub/commit" in capsys.readouterr().out


def test_the_members_of_a_mean_are_uploaded(tmp_path):
    for name in ("fold_0", "fold_1", "cells/other"):
        make_tagger(tmp_path / name)
    save_mean(tmp_path, ["fold_0", "fold_1"], ["a", "b"], RULE)
    members = {f"{fold}/{name}" for fold in ("fold_0", "fold_1") for name in TAGGER}
    assert {*published_files(tmp_path)} == {"tagger.json", *members}


def test_nothing_is_sent_without_the_flag(tmp_path, commits):
    make_run(tmp_path)
    push_to_hub(tmp_path, arguments(tmp_path, push_to_hub=False))
    assert not commits


@pytest.mark.parametrize("error", [HTTPError, OSError])
def test_a_hub_that_refuses_is_one_line(tmp_path, commits, monkeypatch, error):
    def refuse(*_, **__):
        raise error("401 Unauthorized\nmore")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", refuse)
    with pytest.raises(UserError, match="--push_to_hub: cannot create mine: 401 Unauthorized; log"):
        start_recipe(arguments(tmp_path / "mine"))
    make_run(tmp_path)
    with pytest.raises(UserError, match=r"401 Unauthorized; the tagger is in .*; to upload it la"):
        push_to_hub(tmp_path, arguments(tmp_path, hub_model_id="someone/mine"))
