"""What encoder-decoders have in common, and the recurrent one: copying, padding, generation."""

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, BertConfig

from shared.models.recurrent_generators import RecurrentForSeq2SeqLM, RecurrentSeq2SeqConfig
from shared.models.text_generators import CopyHead, TransformerForSeq2SeqLM, shift_right
from shared.models.transformer import TransformerConfig

VOCABULARY, ROWS, LENGTH = 30, 3, 7
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def model_of(architecture, **settings):
    torch.manual_seed(0)
    common = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, **SPECIAL}
    if architecture == "rnn":
        return RecurrentForSeq2SeqLM(RecurrentSeq2SeqConfig(**common, **settings)).eval()
    sizes = {"num_attention_heads": 4, "intermediate_size": 24, "initializer_range": 0.3}
    if architecture == "bert":
        dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
        bert = BertConfig(**{**common, **sizes, **dropout, "num_attention_heads": 2})
        settings["pretrained_encoder"] = bert.to_dict()
    return TransformerForSeq2SeqLM(TransformerConfig(**common, **sizes, **settings)).eval()


def token_ids(length=LENGTH, seed=1):
    return torch.randint(3, VOCABULARY, (ROWS, length), generator=torch.manual_seed(seed))


MODELS = [("rnn", False), ("rnn", True), ("parts", True), ("bert", False), ("bert", True)]
models = pytest.mark.parametrize(("architecture", "copies"), MODELS)


def test_the_labels_before_each_are_read():
    labels = torch.tensor([[5, 6, 2], [7, 2, -100]])
    assert shift_right(labels, 1, 0).tolist() == [[1, 5, 6], [1, 7, 2]]
    assert shift_right(labels[:, [0, 2, 1]], 1, 0).tolist() == [[1, 5, 2], [1, 7, 0]]


@torch.no_grad()
def test_a_copy_head_shares_probability_with_the_tokens_of_the_source():
    torch.manual_seed(0)
    head = CopyHead(8, 6)
    logits, states, memory = torch.randn(2, 3, 10), torch.randn(2, 3, 8), torch.randn(2, 4, 6)
    source, mask = torch.tensor([[4, 5, 4, 9], [1, 2, 3, 9]]), torch.ones(2, 4)
    mask[:, 3] = 0  # padding
    for bias in (-40.0, 0.0, 40.0):
        head.gate.weight.zero_()
        head.gate.bias.fill_(bias)
        actual = head(logits, states, memory, source, mask).exp()
        torch.testing.assert_close(actual.sum(-1), torch.ones(2, 3), **TOLERANCE)
        if bias == 40:  # nothing is copied
            torch.testing.assert_close(actual, logits.softmax(-1), **TOLERANCE)
        if bias == -40:  # everything is
            weights = (head.query(states) @ memory.transpose(1, 2) / 6**0.5)[..., :3].softmax(-1)
            torch.testing.assert_close(actual[0, :, 4], weights[0, :, 0] + weights[0, :, 2])
            torch.testing.assert_close(actual[1, :, 1:4], weights[1])
            assert (actual[..., 9] < 1e-8).all()


@models
@torch.no_grad()
def test_padding_changes_nothing(architecture, copies):
    model = model_of(architecture, copies_source=copies)
    source, labels = token_ids(), token_ids(4, seed=3)
    labels[0, 3] = -100
    expected = model(source, torch.ones_like(source), labels=labels)
    padded = torch.cat([source, torch.zeros(ROWS, 2, dtype=torch.long)], dim=1)
    output = model(padded, (padded != 0).long(), labels=labels)
    torch.testing.assert_close(output.logits, expected.logits, **TOLERANCE)
    loss = torch.nn.functional.cross_entropy(expected.logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(expected.loss, loss)
    half = model(source, labels=labels, num_items_in_batch=22).loss
    torch.testing.assert_close(half, loss * 11 / 22)
    assert not torch.allclose(model(token_ids(seed=5), labels=labels).logits, expected.logits)


@models
def test_generation_is_that_of_the_scores(architecture, copies):
    model = model_of(architecture, copies_source=copies)
    source = token_ids()
    mask = torch.ones_like(source)
    mask[0, 5:] = 0
    flags = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    texts = model.generate(source, attention_mask=mask, **flags)
    with torch.no_grad():
        logits = model(source, mask, decoder_input_ids=texts[:, :-1]).logits
    assert torch.equal(logits.argmax(-1), texts[:, 1:])
    # The sum of a beam is that of the scores of its text, so each row has its own source.
    beams = model.generate(
        source,
        attention_mask=mask,
        num_beams=3,
        length_penalty=0.0,
        return_dict_in_generate=True,
        output_scores=True,
        **flags,
    )
    with torch.no_grad():
        logits = model(source, mask, decoder_input_ids=beams.sequences[:, :-1]).logits
    log_p = logits.log_softmax(-1).gather(2, beams.sequences[:, 1:, None]).sum((1, 2))
    torch.testing.assert_close(log_p, beams.sequences_scores, **TOLERANCE)


@models
def test_a_saved_model_comes_back(architecture, copies, tmp_path):
    model = model_of(architecture, copies_source=copies)
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    assert type(again) is type(model)
    inputs = {"input_ids": token_ids(), "decoder_input_ids": token_ids(3)}
    with torch.no_grad():
        assert torch.equal(model(**inputs)[0], again(**inputs)[0])
    assert again.lm_head.weight is again.get_input_embeddings().weight
    if architecture != "rnn":
        assert again.decoder.embeddings.tokens.weight is again.lm_head.weight


@pytest.mark.parametrize("architecture", ["rnn", "parts"])
def test_a_model_that_copies_learns_to_copy_tokens_it_never_wrote(architecture):
    torch.manual_seed(0)
    model = model_of(architecture, copies_source=True, dropout=0.0).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    half = VOCABULARY // 2
    for _ in range(150):
        source = torch.randint(3, half, (32, 5))
        labels = torch.cat([source[:, :1], torch.full((32, 1), 2)], dim=1)
        loss = model(source, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    # The first token of each source; the model has seen tokens of the other half nowhere.
    source = torch.randint(half, VOCABULARY, (50, 5))
    written = model.eval().generate(source, max_new_tokens=1)[:, 1]
    assert (written == source[:, 0]).float().mean() > 0.5
