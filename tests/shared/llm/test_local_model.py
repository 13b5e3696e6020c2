"""Labels by a tiny causal model; the figures are computed again without cache and padding."""

from functools import cache

import numpy as np
import pytest
import torch
from conftest import FILLER, KEYWORDS
from tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM

from shared.cli.errors import UserError
from shared.llm.local_model import CausalScorer, batch_calibrated, load_causal_scorer
from shared.models.loading import load_causal_language_model, load_tokenizer

WORDS = [*FILLER.split(), *KEYWORDS, *" ".join(KEYWORDS.values()).split(), "yes", "no", "?", "user"]
TEXTS = ["the crash is slow", "docs", "please add support for the batch of the new machine " * 2]
TEMPLATE = "{% for m in messages %}user {{ m['content'] }} answer{% endfor %}"


@pytest.fixture(scope="module", params=["llama", "gpt2", "gpt_neox"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("causal") / request.param
    return save_tiny_model(folder, request.param, WORDS, "AutoModelForCausalLM")


@cache
def load(folder, template=None, batch_size=2):
    tokenizer = load_tokenizer(str(folder))
    tokenizer.chat_template = template
    model = load_causal_language_model(str(folder), tokenizer=tokenizer)
    return CausalScorer(model, tokenizer, batch_size=batch_size), tokenizer


def scores(iterator, n_rows):
    """Return the scores that an iterator yields, in the order of the rows."""
    collected = {}
    for rows, values in iterator:
        collected.update(zip(rows.tolist(), values, strict=True))
    return np.stack([collected[row] for row in range(n_rows)])


def next_token(folder, ids):
    """Return the logits after some tokens, of the model alone."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1].double().numpy()


def log_softmax(values):
    return values - np.logaddexp.reduce(values)


def test_probabilities_of_labels_are_those_of_decoding_under_the_constraint(folder):
    labels = ["bug", "speed", "speed batch", "bug crash slow"]
    scorer, tokenizer = load(folder, TEMPLATE)
    actual = scores(scorer.label_scores(TEXTS, labels), len(TEXTS))

    def ids(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    bug, speed, batch, crash = (ids(word)[0] for word in ("bug", "speed", "batch", "crash"))
    end = tokenizer.eos_token_id
    for text, row in zip(TEXTS, actual, strict=True):
        prompt = ids(f"user {text} answer")
        first = log_softmax(next_token(folder, prompt)[[bug, speed]])
        after_bug = log_softmax(next_token(folder, [*prompt, bug])[[end, crash]])
        after_speed = log_softmax(next_token(folder, [*prompt, speed])[[end, batch]])
        expected = [first[0] + after_bug[0], *(first[1] + after_speed), first[0] + after_bug[1]]
        assert row == pytest.approx(expected, abs=1e-4)
    assert np.exp(actual).sum(axis=1) == pytest.approx(1)


def test_odds_of_yes_are_those_of_the_model(folder):
    questions = ["bug ?", "speed batch ?"]
    scorer, tokenizer = load(folder)
    actual = scores(scorer.yes_no_scores(TEXTS, questions), len(TEXTS))

    def ids(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    for text, row in zip(TEXTS, actual, strict=True):
        for question, odds in zip(questions, row, strict=True):
            prompt = [tokenizer.bos_token_id, *ids(text), *ids(question)]
            logits = next_token(folder, prompt)
            yes, no = (logits[ids(word)[0]] for word in ("yes", "no"))
            assert odds == pytest.approx(yes - no, abs=1e-4)


def test_a_score_does_not_depend_on_the_batch(folder):
    alone = scores(load(folder, batch_size=1)[0].label_scores(TEXTS, ["bug", "docs"]), 3)
    together = scores(load(folder, batch_size=3)[0].label_scores(TEXTS, ["bug", "docs"]), 3)
    assert together == pytest.approx(alone, abs=1e-4)


def test_what_prompts_have_in_common_changes_nothing(folder):
    begun = [f"the memory of the model is {text}" for text in TEXTS]
    scorer, _ = load(folder)
    together = scores(scorer.label_scores(begun, ["bug", "docs"]), 3)
    alone = [scores(scorer.label_scores([text], ["bug", "docs"]), 1)[0] for text in begun]
    assert together == pytest.approx(np.array(alone), abs=1e-4)
    twice = scores(scorer.label_scores(begun[:1] * 2, ["bug", "docs"]), 2)
    assert twice == pytest.approx(np.array(alone[:1] * 2), abs=1e-4)


def test_close_answers_differ_in_bfloat16_too(folder, tmp_path):
    questions = ["bug ?", "speed batch ?", "label ?"]
    single, half = (
        load_causal_scorer(str(folder), tmp_path, batch_size=2, bf16=bf16) for bf16 in (False, True)
    )
    expected = scores(single.yes_no_scores(TEXTS, questions), len(TEXTS))
    actual = scores(half.yes_no_scores(TEXTS, questions), len(TEXTS))
    assert actual == pytest.approx(expected, abs=0.1 * np.abs(expected).max())
    # Differences of two bfloat16 numbers would be rounded.
    rounded = torch.tensor(actual).bfloat16().double().numpy()
    assert (actual != rounded).all()


def test_special_tokens_in_a_text_are_plain_text(folder):
    scorer, tokenizer = load(folder)
    plain = scorer._plain(f"crash {tokenizer.eos_token} slow")
    assert tokenizer.eos_token_id not in plain
    assert len(plain) > 3


def test_what_is_refused(folder):
    scorer, _ = load(folder)
    with pytest.raises(UserError, match="writes two labels alike"):
        next(scorer.label_scores(TEXTS, ["€", "£"]))  # both unknown
    with pytest.raises(UserError, match=r"and --model reads 64; lower --max_characters"):
        next(scorer.label_scores(["batch " * 80], ["bug", "docs"]))


def test_a_tokenizer_without_yes_and_no(tmp_path):
    save_tiny_model(tmp_path, "llama", ["bug"], "AutoModelForCausalLM")
    with pytest.raises(UserError, match="does not tell yes from no"):
        load(tmp_path)[0].yes_no_scores(["bug"], ["bug"])


def test_a_model_of_another_type_is_refused(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    with pytest.raises(UserError):
        load_causal_language_model(str(tiny_model), tokenizer=tokenizer)


def test_calibration_takes_away_what_all_texts_have_in_common():
    raw = np.array([[0.0, -5.0], [-1.0, -5.0], [-2.0, -5.0]])
    assert batch_calibrated(raw).argmax(axis=1).tolist() == [0, 0, 1]
    assert batch_calibrated(raw).mean(axis=0) == pytest.approx(0)
