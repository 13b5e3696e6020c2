"""The transformer from its parts, beside torch's and GPT-2 with the same weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GPT2Config,
    GPT2LMHeadModel,
)

from shared.models.text_generators import TransformerForCausalLM, TransformerForSeq2SeqLM
from shared.models.transformer import (
    Attention,
    Block,
    Stack,
    TransformerConfig,
    TransformerModel,
    causal_mask,
    padding_mask,
    sinusoidal_positions,
)

WIDTH, HEADS, ROWS, LENGTH, VOCABULARY = 16, 4, 3, 7, 30
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def config_of(**settings):
    defaults = {
        **{"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_attention_heads": HEADS},
        **{"num_hidden_layers": 2, "intermediate_size": 24, "max_position_embeddings": 32},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
        "initializer_range": 0.3,  # so that differences are large
    }
    return TransformerConfig(**{**defaults, **settings})


def model_of(cls, **settings):
    torch.manual_seed(0)
    return cls(config_of(**settings)).eval()


def token_ids(rows=ROWS, length=LENGTH, seed=1):
    return torch.randint(3, VOCABULARY, (rows, length), generator=torch.manual_seed(seed))


# --- masks and positions -------------------------------------------------------------------------


def test_true_in_a_mask_is_where_a_query_may_attend():
    assert causal_mask(3, 3).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert causal_mask(2, 4).tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert padding_mask(torch.tensor([[1, 1, 0]])).tolist() == [[[[1, 1, 0]]]]


def test_positions_of_sines_and_cosines():
    """Position 2 of width 4: sin and cos of 2 and of 2 / 100."""
    table = sinusoidal_positions(3, 4)
    torch.testing.assert_close(table[0], torch.tensor([0.0, 1, 0, 1]))
    torch.testing.assert_close(table[2], torch.tensor([0.909297, -0.416147, 0.019999, 0.9998]))


# --- beside torch --------------------------------------------------------------------------------


def copy_attention(ours: Attention, theirs: nn.MultiheadAttention):
    ours.inputs.weight.copy_(theirs.in_proj_weight)
    ours.inputs.bias.copy_(theirs.in_proj_bias)
    ours.output.load_state_dict(theirs.out_proj.state_dict())


@torch.no_grad()
def copy_block(ours: Block, theirs):
    copy_attention(ours.attention, theirs.self_attn)
    norms = [theirs.norm1, theirs.norm2]
    if hasattr(theirs, "multihead_attn"):
        copy_attention(ours.memory_attention, theirs.multihead_attn)
        ours.memory_norm.load_state_dict(theirs.norm2.state_dict())
        norms = [theirs.norm1, theirs.norm3]
    ours.attention_norm.load_state_dict(norms[0].state_dict())
    ours.feed_forward_norm.load_state_dict(norms[1].state_dict())
    ours.feed_forward[0].load_state_dict(theirs.linear1.state_dict())
    ours.feed_forward[2].load_state_dict(theirs.linear2.state_dict())


@torch.no_grad()
def randomize(module):
    """Norms and biases start as ones and zeros, which would hide a wrong copy."""
    for parameter in module.parameters():
        parameter.copy_(torch.randn_like(parameter) * 0.3)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_an_encoder_and_a_decoder_equal_those_of_torch(norm, activation):
    torch.manual_seed(0)
    reference = nn.Transformer(
        WIDTH, HEADS, 2, 2, 24, 0.0, activation, batch_first=True, norm_first=norm == "pre"
    ).eval()
    randomize(reference)
    config = config_of(norm=norm, activation=activation, final_norm=True, dropout=0.0)
    encoder = Stack(config, 2, is_causal=False, reads_memory=False).eval()
    decoder = Stack(config, 2, is_causal=True, reads_memory=True).eval()
    for ours, theirs in ((encoder, reference.encoder), (decoder, reference.decoder)):
        for block, other in zip(ours.blocks, theirs.layers, strict=True):
            copy_block(block, other)
        ours.norm.load_state_dict(theirs.norm.state_dict())
        nn.init.zeros_(ours.embeddings.positions.weight)
    source, target = torch.randn(ROWS, LENGTH, WIDTH), torch.randn(ROWS, 5, WIDTH)
    mask = torch.ones(ROWS, LENGTH)
    mask[0, 4:] = 0
    target_mask = torch.ones(ROWS, 5)
    target_mask[1, 3:] = 0
    expected = reference(
        source,
        target,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(5),
        src_key_padding_mask=~mask.bool(),
        memory_key_padding_mask=~mask.bool(),
        tgt_is_causal=True,
    )
    with torch.no_grad():
        memory, _ = encoder(None, mask, inputs_embeds=source)
        states, _ = decoder(
            None, target_mask, inputs_embeds=target, memory=memory, memory_attention_mask=mask
        )
    seen = target_mask.bool()
    torch.testing.assert_close(states[seen], expected[seen], **TOLERANCE)


# --- beside GPT-2 --------------------------------------------------------------------------------


@torch.no_grad()
def copy_gpt2(ours: TransformerForCausalLM, theirs: GPT2LMHeadModel):
    stack, reference = ours.model.stack, theirs.transformer
    stack.embeddings.tokens.load_state_dict(reference.wte.state_dict())
    stack.embeddings.positions.load_state_dict(reference.wpe.state_dict())
    stack.norm.load_state_dict(reference.ln_f.state_dict())
    for block, other in zip(stack.blocks, reference.h, strict=True):
        pairs = [
            (block.attention.inputs, other.attn.c_attn),
            (block.attention.output, other.attn.c_proj),
            (block.feed_forward[0], other.mlp.c_fc),
            (block.feed_forward[2], other.mlp.c_proj),
        ]
        for linear, convolution in pairs:
            linear.weight.copy_(convolution.weight.T)
            linear.bias.copy_(convolution.bias)
        block.attention_norm.load_state_dict(other.ln_1.state_dict())
        block.feed_forward_norm.load_state_dict(other.ln_2.state_dict())


def gpt2_pair():
    reference = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY, n_positions=32, n_embd=WIDTH, n_layer=2, n_head=HEADS, n_inner=24
        )
    ).eval()
    randomize(reference)
    model = model_of(TransformerForCausalLM, activation="gelu_new", pad_token_id=None)
    copy_gpt2(model, reference)
    return model, reference


@torch.no_grad()
def test_a_decoder_equals_gpt2_with_the_same_weights():
    model, reference = gpt2_pair()
    ids = token_ids()
    mine, other = model(ids, labels=ids), reference(ids, labels=ids)
    torch.testing.assert_close(mine.logits, other.logits, **TOLERANCE)
    torch.testing.assert_close(mine.loss, other.loss, **TOLERANCE)
    states = [m(ids, output_hidden_states=True).hidden_states for m in (model, reference)]
    for layer, expected in zip(*states, strict=True):
        torch.testing.assert_close(layer, expected, **TOLERANCE)
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, mine.logits[:, -2:])


def test_generated_texts_equal_those_of_gpt2_also_of_padded_prompts():
    model, reference = gpt2_pair()
    prompts, mask = token_ids(length=5), torch.ones(ROWS, 5, dtype=torch.long)
    mask[0, :3] = 0  # prompts of different lengths are padded on the left
    flags = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    expected = reference.generate(prompts, attention_mask=mask, **flags)
    for cache in (True, False):
        actual = model.generate(prompts, attention_mask=mask, use_cache=cache, **flags)
        assert torch.equal(actual, expected)
    beams = {**flags, "num_beams": 3}
    assert torch.equal(
        model.generate(prompts, attention_mask=mask, **beams),
        reference.generate(prompts, attention_mask=mask, **beams),
    )


def test_gradients_equal_those_of_gpt2_also_with_checkpoints():
    model, reference = gpt2_pair()
    ids = token_ids()
    gradients = []
    model.train(), reference.train()
    for module in (*model.modules(), *reference.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for each in (reference, model):
        each(ids, labels=ids).loss.backward()
        gradients.append(each.get_input_embeddings().weight.grad)
    torch.testing.assert_close(*gradients, **TOLERANCE)
    model.activation_checkpointing_enable()
    model.zero_grad()
    model(ids, labels=ids).loss.backward()
    torch.testing.assert_close(model.get_input_embeddings().weight.grad, gradients[0], **TOLERANCE)


# --- what holds of all models --------------------------------------------------------------------


@given(
    n_padding=st.integers(0, 6),
    left=st.booleans(),
    positions=st.sampled_from(["learned", "sinusoidal"]),
    is_decoder=st.booleans(),
    norm=st.sampled_from(["pre", "post"]),
)
@torch.no_grad()
def test_padding_on_either_side_changes_no_state(n_padding, left, positions, is_decoder, norm):
    settings = {"positions": positions, "is_decoder": is_decoder, "norm": norm}
    model = model_of(TransformerModel, embedding_norm=norm == "post", **settings)
    ids = token_ids()
    expected = model(ids, torch.ones_like(ids)).last_hidden_state
    padding = torch.zeros(ROWS, n_padding, dtype=torch.long)
    order = (padding, ids) if left else (ids, padding)
    padded = torch.cat(order, dim=1)
    states = model(padded, (padded != 0).long()).last_hidden_state
    assert states.isfinite().all()
    part = states[:, n_padding:] if left else states[:, :LENGTH]
    torch.testing.assert_close(part, expected, **TOLERANCE)


@torch.no_grad()
def test_a_decoder_never_looks_ahead_and_an_encoder_does():
    for is_decoder in (True, False):
        model = model_of(TransformerModel, is_decoder=is_decoder)
        ids = token_ids()
        changed = ids.clone()
        changed[:, 4:] = token_ids(seed=2)[:, 4:]
        one, two = model(ids).last_hidden_state, model(changed).last_hidden_state
        assert torch.equal(one[:, :4], two[:, :4]) is is_decoder
        assert not torch.equal(one[:, 4:], two[:, 4:])


@torch.no_grad()
def test_a_cache_changes_nothing():
    model = model_of(TransformerForCausalLM)
    ids = token_ids()
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    expected = model(ids, mask).logits
    cache, logits = None, []
    for start, stop in ((0, 3), (3, 4), (4, LENGTH)):
        part = model(ids[:, start:stop], mask[:, :stop], past_key_values=cache, use_cache=True)
        cache = part.past_key_values
        logits.append(part.logits)
    seen = mask.bool()
    torch.testing.assert_close(torch.cat(logits, dim=1)[seen], expected[seen], **TOLERANCE)


@torch.no_grad()
def test_an_encoder_decoder_reads_only_the_tokens_of_its_first_text():
    model = model_of(TransformerForSeq2SeqLM, num_decoder_layers=1)
    assert len(model.decoder.blocks) == 1
    source, labels = token_ids(), token_ids(length=4, seed=3)
    labels[0, 3] = -100
    expected = model(source, torch.ones_like(source), labels=labels)
    padded = torch.cat([source, torch.zeros(ROWS, 2, dtype=torch.long)], dim=1)
    output = model(padded, (padded != 0).long(), labels=labels)
    torch.testing.assert_close(output.logits, expected.logits, **TOLERANCE)
    # The decoder reads the start and the labels before each; the loss is the mean of those that
    # count.
    given_ids = model.prepare_decoder_input_ids_from_labels(labels)
    assert given_ids[:, 0].tolist() == [1] * ROWS
    assert torch.equal(given_ids[:, 1:], labels[:, :-1])
    loss = nn.functional.cross_entropy(expected.logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(expected.loss, loss)
    half = model(source, labels=labels, num_items_in_batch=22).loss
    torch.testing.assert_close(half, loss * 11 / 22)
    changed = model(token_ids(seed=5), labels=labels)
    assert not torch.allclose(changed.logits, expected.logits)


def test_generation_of_an_encoder_decoder_is_that_of_its_scores():
    model = model_of(TransformerForSeq2SeqLM)
    source = token_ids()
    mask = torch.ones_like(source)
    mask[0, 5:] = 0
    flags = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    texts = [
        model.generate(source, attention_mask=mask, use_cache=c, **flags) for c in (True, False)
    ]
    assert torch.equal(*texts)
    with torch.no_grad():
        logits = model(source, mask, decoder_input_ids=texts[0][:, :-1]).logits
    assert torch.equal(logits.argmax(-1), texts[0][:, 1:])
    assert model.generate(source, attention_mask=mask, num_beams=2, **flags).shape == (ROWS, 7)


@pytest.mark.parametrize(
    ("cls", "auto"),
    [
        (TransformerModel, AutoModel),
        (TransformerForCausalLM, AutoModelForCausalLM),
        (TransformerForSeq2SeqLM, AutoModelForSeq2SeqLM),
    ],
)
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_a_saved_model_comes_back(cls, auto, positions, tmp_path):
    model = model_of(cls, positions=positions)
    model.save_pretrained(tmp_path)
    again = auto.from_pretrained(tmp_path).eval()
    assert type(again) is cls
    inputs = {"input_ids": token_ids()}
    if cls is TransformerForSeq2SeqLM:
        inputs["decoder_input_ids"] = token_ids(length=3)
    with torch.no_grad():
        assert torch.equal(model(**inputs)[0], again(**inputs)[0])
    if cls is not TransformerModel:
        assert again.lm_head.weight is again.get_input_embeddings().weight


def test_first_weights_keep_the_variance_in_deep_models():
    torch.manual_seed(0)
    spread = []
    for n_layers in (2, 24):
        settings = {"hidden_size": 64, "intermediate_size": 256, "initializer_range": 0.02}
        model = model_of(TransformerModel, num_hidden_layers=n_layers, final_norm=False, **settings)
        states = model(token_ids(), output_hidden_states=True).hidden_states
        spread.append(float((states[-1] - states[0]).detach().std()))
    assert spread[1] == pytest.approx(spread[0], rel=0.1)
    assert (model.get_input_embeddings().weight[0] == 0).all()


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="hidden_size 10: must be a multiple of num_attention_hea"):
        TransformerModel(config_of(hidden_size=10))
