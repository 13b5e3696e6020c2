"""Prompts and scores of a tiny causal model; figures are computed again, each prompt on its own."""

import numpy as np
import pytest
import torch
from conftest import FILLER, KEYWORDS
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import save_tiny_model
from transformers import TrainingArguments

from shared.cli.errors import UserError
from shared.methods import (
    Demonstrations,
    PromptScorer,
    PromptTemplates,
    Scoring,
    load_words_after_prompts,
)
from shared.methods.prompting import CONTENT_FREE, PromptWriter
from shared.training import LengthGroupedTrainer, PaddingCollator

WORDS = [
    *FILLER.split(),
    *KEYWORDS,
    *" ".join(KEYWORDS.values()).split(),
    "answer",
    "user",
    "a",
    "is",
    "text",
    "label",
    "sep",
    *"{}[]",
]
TEXTS = ["the crash is slow", "docs", "please add support for the batch of the new machine", "a a"]
CHAT = "{% for m in messages %}{{ m.role }} {{ m['content'] }} {% endfor %}answer"
PROMPTS = PromptTemplates(
    ("{text} answer {label}", "please {text} is {label}"),
    (("bug",), ("speed", "slow batch"), ("crash slow typo",)),
    "add a",
)
SHOWN = Demonstrations(["typo in the docs", "a slow batch"], ["bug", "speed"], n=2, n_orders=2)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("causal") / request.param
    sizes = {"max_position_embeddings": 128, "n_positions": 128}
    sizes = {
        n: size for n, size in sizes.items() if (n == "n_positions") == (request.param == "gpt2")
    }
    return save_tiny_model(folder, request.param, WORDS, "AutoModelForCausalLM", **sizes)


def load(folder, *, bf16=False, padding_side="right", template=None):
    model, tokenizer = load_words_after_prompts(str(folder), bf16)
    tokenizer.padding_side, tokenizer.chat_template = padding_side, template
    args = TrainingArguments(str(folder / "out"), use_cpu=True, disable_tqdm=True, report_to=[])
    collator = PaddingCollator(tokenizer)
    return LengthGroupedTrainer(model=model, args=args, data_collator=collator), tokenizer


def whole_scores(trainer, tokenizer, prompts, words, normalization):
    """Return the log probabilities of words, each read with its whole prompt, without a cache."""
    rows = []
    for prompt in prompts:
        row = []
        for word in words:
            start = tokenizer(prompt, add_special_tokens=False).input_ids
            ids = [tokenizer.bos_token_id, *start]
            tokens = tokenizer(word, add_special_tokens=False).input_ids
            with torch.no_grad():
                logits = trainer.model.model(torch.tensor([ids + tokens])).logits[0]
            steps = logits.double().log_softmax(-1)[len(ids) - 1 : -1]
            total = steps[range(len(tokens)), tokens].sum().item()
            row.append(total / len(tokens) if normalization == "mean" else total)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(
    ("demonstrations", "side", "normalization"),
    [(Demonstrations(), "right", "sum"), (SHOWN, "left", "mean"), (SHOWN, "right", "sum")],
)
def test_scores_are_those_of_each_prompt_and_word_read_whole(
    folder, demonstrations, side, normalization
):
    trainer, tokenizer = load(folder, padding_side=side)
    scorer = PromptScorer(trainer, tokenizer, PROMPTS, demonstrations, Scoring(normalization))
    actual = scorer._log_probabilities(TEXTS)
    assert actual.shape == (2 * demonstrations.n_orders, len(TEXTS), 4)
    prompts = []
    for template in PROMPTS.templates:
        before, after = template.removesuffix(" {label}").split("{text}")
        for group in demonstrations(["any"]):
            shown = "".join(f"{before}{text}{after} {word} " for text, word in group[0])
            prompts.append([f"add a {shown}{before}{text}{after}" for text in TEXTS])
    words = [word for group in PROMPTS.words for word in group]
    expected = [whole_scores(trainer, tokenizer, p, words, normalization) for p in prompts]
    assert actual == pytest.approx(np.array(expected), abs=1e-4)


def test_a_label_has_the_mean_probability_of_its_words_over_templates_and_orders(folder):
    trainer, tokenizer = load(folder)
    scorer = PromptScorer(trainer, tokenizer, PROMPTS, SHOWN, Scoring(), block_size=3)
    raw = np.exp(np.array(scorer._log_probabilities(TEXTS)))
    words = (raw / raw.sum(axis=2, keepdims=True)).mean(axis=0)
    labels = np.stack([words[:, 0], words[:, 1:3].mean(axis=1), words[:, 3]], axis=1)
    expected = labels / labels.sum(axis=1, keepdims=True)
    assert scorer(TEXTS) == pytest.approx(expected, abs=1e-5)
    assert scorer([]).shape == (0, 3)


def test_calibration_makes_labels_equal_on_the_texts_that_it_reads(folder):
    trainer, tokenizer = load(folder)
    prompts = PromptTemplates(PROMPTS.templates[:1], (("bug",), ("speed",), ("docs slow",)))
    scorer = PromptScorer(trainer, tokenizer, prompts, Demonstrations(), Scoring())
    before = scorer(TEXTS)
    # Contextual (Zhao et al. 2021): W = diag(p)^-1 with the mean probabilities p.
    p = scorer(CONTENT_FREE).mean(axis=0)
    scorer.calibrate()
    expected = before / p
    assert scorer(TEXTS) == pytest.approx(expected / expected.sum(1, keepdims=True), abs=1e-6)
    # Batch (Zhou et al. 2024): the log probabilities have the same mean.
    scorer.calibrate(TEXTS)
    means = np.log(scorer(TEXTS)).mean(axis=0)
    assert np.ptp(means) < 1e-6
    assert np.ptp(np.log(before).mean(axis=0)) > 1e-3


def test_bfloat16_changes_scores_little(folder):
    expected, actual = (
        PromptScorer(*load(folder, bf16=bf16), PROMPTS, SHOWN, Scoring())(TEXTS)
        for bf16 in (False, True)
    )
    assert actual == pytest.approx(expected, abs=0.02)
    assert (actual != expected).any()


def test_a_conversation_has_the_demonstrations_as_turns(folder):
    _, tokenizer = load(folder, template=CHAT)
    writer = PromptWriter(tokenizer, "docs {text} is {label}", "please", chat=True, max_length=9)
    (prompt,) = writer.write(["slow"], [[("crash", "bug"), ("typo", "docs")]], None)
    expected = "user please docs crash is assistant bug user docs typo is assistant docs"
    expected = tokenizer(f"{expected} user docs slow is answer", add_special_tokens=False).input_ids
    assert prompt == expected
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="--chat: the tokenizer of --model has no chat template"):
        PromptWriter(tokenizer, "{text} {label}", "", chat=True, max_length=9)


def test_a_text_is_data_whatever_it_holds(folder):
    _, tokenizer = load(folder)
    writer = PromptWriter(tokenizer, "{text} is {label}", "", chat=False, max_length=99)
    texts = ["{label} {text}", f"crash {tokenizer.eos_token} slow", ""]
    prompts = writer.write(texts, [[("{text}", "bug")]] * 3, None)
    for prompt, text in zip(prompts, texts, strict=True):
        decoded = tokenizer.decode(prompt).replace(" ", "")
        assert decoded.endswith(f"{text}is".replace(" ", "").lower())
        assert "{text}isbug" in decoded
        assert tokenizer.eos_token_id not in prompt


def test_long_texts_are_cut_and_nothing_else(folder):
    _, tokenizer = load(folder)
    writer = PromptWriter(tokenizer, "please {text} is {label}", "add", chat=False, max_length=4)
    shown = [[("slow " * 9, "bug")]]
    (prompt,) = writer.write(["crash " * 9], shown, None)
    assert tokenizer.decode(prompt[1:]) == (
        "add please slow slow slow slow is bug please crash crash crash crash is"
    )
    n = len(prompt)
    (prompt,) = writer.write(["crash " * 9], shown, n - 2)  # two tokens less of the text
    assert tokenizer.decode(prompt[1:]).endswith("slow slow slow slow is bug please crash crash is")
    with pytest.raises(UserError, match="tokens without its text, and --model reads 11; lower"):
        writer.write(["crash"], shown, n - 4)


def test_words_that_the_tokenizer_writes_alike_are_refused(folder):
    trainer, tokenizer = load(folder)
    prompts = PromptTemplates(("{text} {label}",), (("€",), ("£",)))
    with pytest.raises(UserError, match="--prompts: the tokenizer of --model cannot tell '£'"):
        PromptScorer(trainer, tokenizer, prompts, Demonstrations(), Scoring())


# --- demonstrations ------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_nearest_demonstrations_are_the_most_similar_texts_but_for_the_text_itself(
    texts, n, n_orders, seed
):
    vectors = np.random.default_rng(seed).normal(size=(256, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def embed(some):
        return vectors[[ord(text) for text in some]]

    words = [text.upper() for text in texts]
    shown = Demonstrations(texts, words, n, n_orders, seed, embed(texts), embed)
    orders = shown(["c", "z"])
    assert len(orders) == n_orders
    for i, query in enumerate("cz"):
        others = [text for text in texts if text != query]
        others.sort(key=lambda text: -(embed([text]) @ embed([query]).T).item())
        nearest = others[: min(n, len(texts))]
        assert [text for text, _ in orders[0][i]] == nearest[::-1]  # the nearest one stands last
        for order in orders:
            assert sorted(order[i]) == sorted((text, text.upper()) for text in nearest)


def test_orders_are_random_and_the_same_for_a_seed():
    texts = [str(i) for i in range(20)]
    first, again, other = (
        Demonstrations(texts, texts, 9, 3, seed)(["x", "y"]) for seed in (1, 1, 2)
    )
    assert first == again != other
    for order in first:
        assert order[0] == order[1]
        assert {text for text, _ in order[0]} == {*texts[:9]}
    assert first[0] != first[1]
