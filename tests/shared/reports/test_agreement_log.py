import pytest

from shared.cli.errors import UserError
from shared.reports import AgreementLog

TEXTS = [f"text {i}" for i in range(100)]


def says(n_bugs):
    """What a model says that finds a bug in the first texts."""
    return {text: ["bug" if i < n_bugs else "question"] for i, text in enumerate(TEXTS)}


@pytest.fixture
def log(tmp_path):
    return lambda: AgreementLog(tmp_path / "agreement.json", single_label=True)


def test_rounds_are_kept_between_runs_until_models_agree(log):
    for number, n_bugs in enumerate([20, 50, 50, 50]):
        log().add(says(n_bugs), 20 * number, f"labels {number}")
        assert "labelling more hardly changes" not in log().describe()
    # 70 of 100 agree; by chance, .2 x .5 + .8 x .5.
    assert log().kappas == pytest.approx([(0.7 - 0.5) / 0.5, 1, 1])
    log().add(says(50), 80, "labels 4")
    assert "labelling more hardly changes" in log().describe()


def test_the_same_model_counts_once(log):
    log().add(says(20), 20, "a")
    log().add(says(30), 40, "b")
    log().add(says(30), 40, "b")
    assert len(log().kappas) == 1


def test_texts_may_come_and_go(log):
    log().add(says(50), 20, "a")
    fewer = {text: labels for text, labels in says(50).items() if text != "text 3"}
    log().add(fewer | {"a new one": ["bug"]}, 40, "b")
    assert log().kappas == [1]
    log().add({"another one": ["bug"]}, 60, "c")  # nothing to compare
    assert log().kappas == [1]
    assert "repeat the command" not in log().describe()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rounds": '])
def test_a_damaged_file_is_refused(log, tmp_path, content):
    (tmp_path / "agreement.json").write_text(content)
    with pytest.raises(UserError, match=r"agreement\.json: damaged; delete it"):
        log()


def test_before_the_second_model(log):
    log().add(says(20), 20, "a")
    assert "repeat the command" in log().describe()
