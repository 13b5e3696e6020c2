"""Networks from scratch: padding has no effect, definitions hold, a saved folder loads."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    pipeline,
    set_seed,
)

from shared.models.networks import (
    CELLS,
    TextCNNConfig,
    TextMLPConfig,
    TextMLPForSequenceClassification,
    TextNgramsConfig,
    TextRNNConfig,
)

SIZES = {"vocab_size": 40, "embedding_size": 8, "num_labels": 3}
CONFIGS = {
    **{f"ngrams of {n}": TextNgramsConfig(ngram_size=n, buckets=64, **SIZES) for n in (1, 2, 3)},
    **{
        f"mlp, {name}": TextMLPConfig(hidden_size=6, normalization=name, **SIZES)
        for name in ("batch", "layer")
    },
    "cnn": TextCNNConfig(num_filters=4, filter_widths=[3], **SIZES),
    "cnn, several widths": TextCNNConfig(num_filters=4, filter_widths=[1, 2, 5], **SIZES),
    "cnn, mean and max": TextCNNConfig(
        num_filters=4, filter_widths=[1, 3], pooling="mean_max", **SIZES
    ),
    **{cell: TextRNNConfig(cell=cell, hidden_size=6, **SIZES) for cell in CELLS},
    "two layers": TextRNNConfig(cell="gru", num_layers=2, hidden_size=6, **SIZES),
    **{
        f"{cell}, both ways": TextRNNConfig(cell=cell, hidden_size=6, bidirectional=True, **SIZES)
        for cell in CELLS
    },
}


def build(name, **changes):
    """Return a random network in evaluation mode, with random biases to make zeros visible."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = type(CONFIGS[name])(**{**CONFIGS[name].to_dict(), **changes})
        model = AutoModelForSequenceClassification.from_config(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


MODELS = {name: build(name) for name in CONFIGS}
each_network = pytest.mark.parametrize("name", CONFIGS)


def logits(model, rows, mask=None):
    with torch.no_grad():
        mask = None if mask is None else torch.tensor(mask)
        return model(torch.tensor(rows), attention_mask=mask).logits


# --- padding -------------------------------------------------------------------------------------


@each_network
@settings(max_examples=10, deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(2, 39), min_size=1, max_size=12), min_size=1, max_size=5),
    filler=st.integers(0, 39),
    more=st.integers(0, 9),
    left=st.booleans(),
)
def test_padding_never_influences_a_score(name, texts, filler, more, left):
    """Pad with any token, any number of times, on either side, also texts shorter than a filter."""
    model, width = MODELS[name], max(map(len, texts)) + more
    rows = np.full((len(texts), width), filler)
    mask = np.zeros_like(rows)
    for i, text in enumerate(texts):
        columns = slice(width - len(text), width) if left else slice(len(text))
        rows[i, columns], mask[i, columns] = text, 1
    alone = torch.cat([logits(model, [text], [[1] * len(text)]) for text in texts])
    torch.testing.assert_close(logits(model, rows, mask), alone, rtol=1e-5, atol=1e-5)


@each_network
def test_without_a_mask_the_padding_token_is_padding(name):
    rows, mask = [[5, 6, 7, 1, 1]], [[1, 1, 1, 0, 0]]
    assert torch.equal(logits(MODELS[name], rows), logits(MODELS[name], rows, mask))


@each_network
def test_a_row_of_padding_alone_has_a_finite_score_and_finite_gradients(name):
    model = build(name).train()
    loss = model(torch.full((2, 4), 1), labels=torch.tensor([0, 2])).loss
    loss.backward()
    assert torch.isfinite(loss)
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)
    # Other texts in the batch do not change the score.
    beside = [[1] * 4, [5, 6, 7, 8]]
    torch.testing.assert_close(logits(model.eval(), beside)[0], logits(model, [[1] * 4])[0])


# --- against the definition ----------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_ngrams_are_averaged(size):
    buckets = 10**12  # so many that no two n-grams share one
    model = build("ngrams of 2", ngram_size=size)
    model.config.buckets = buckets
    ids, table = [7, 3, 22, 9], {}
    model.ngrams.forward = lambda hashed: (
        torch.stack([torch.stack([vector(table, int(h)) for h in row]) for row in hashed])
        if hashed.numel()
        else torch.zeros(*hashed.shape, 8)
    )
    scores = logits(model, [ids])[0]
    pieces = [model.embeddings.weight[i].detach() for i in ids]
    assert len(table) == sum(max(len(ids) - n, 0) for n in range(1, size))
    expected = model.classifier(torch.stack([*pieces, *table.values()]).mean(dim=0))
    torch.testing.assert_close(scores, expected.detach())
    assert not torch.equal(logits(model, [[7, 22, 3, 9]])[0], scores) or size == 1


def vector(table, key):
    """Return the vector of a bucket; make it on the first call."""
    return table.setdefault(key, torch.full((8,), float(len(table))))


def test_the_mlp_divides_the_sum_of_the_vectors_by_the_root_of_their_number():
    model = build("mlp, layer", num_layers=1, normalization="none", activation="tanh")
    ids, layer = torch.tensor([[5, 9, 9, 30]]), model.layers[0].linear
    with torch.no_grad():
        expected = model.classifier(torch.tanh(layer(model.embeddings(ids).sum(1) / 2)))
    torch.testing.assert_close(logits(model, ids.tolist()), expected)


def test_batch_normalisation_passes_a_batch_of_one_row():
    model = TextMLPForSequenceClassification(CONFIGS["mlp, batch"])
    with torch.no_grad():
        one = model.eval()(torch.tensor([[5, 9]])).logits
        torch.testing.assert_close(model.train()(torch.tensor([[5, 9]])).logits, one)
    before = model.layers[0].normalization.running_mean.clone()
    model(torch.tensor([[5, 9], [7, 8]]))
    assert not torch.equal(model.layers[0].normalization.running_mean, before)


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("pooling", ["max", "mean_max"])
def test_filters_are_reduced_to_the_maximum_or_to_maximum_and_mean(width, pooling):
    model = build("cnn", filter_widths=[width], pooling=pooling)
    ids = [7, 3, 22, 9]
    vectors = model.embeddings.weight[torch.tensor(ids)].detach().numpy()
    vectors = np.concatenate([vectors, np.zeros((width - 1, 8))])
    (convolution,) = model.convolutions
    weight, bias = (parameter.detach().numpy() for parameter in convolution.parameters())
    values = [
        [(vectors[start : start + width].T * filter).sum() for filter in weight] + bias
        for start in range(len(ids))
    ]
    values = np.maximum(values, 0)
    features = values.max(axis=0)
    if pooling == "mean_max":
        features = np.concatenate([features, values.mean(axis=0)])
    expected = model.classifier(torch.tensor(features, dtype=torch.float32)).detach()
    torch.testing.assert_close(logits(model, [ids])[0], expected)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_are_those_of_packed_sequences(cell, bidirectional):
    """Compare with the final states of torch's bidirectional network on packed texts."""
    options = {"nonlinearity": "relu"} if cell == "rnn" else {}
    model = build(cell, bidirectional=bidirectional, **options)
    reference = CELLS[cell](8, 6, batch_first=True, bidirectional=bidirectional, **options)
    weights = {**model.forwards.state_dict()}
    if bidirectional:
        other = model.backwards.state_dict().items()
        weights |= {f"{key}_reverse": value for key, value in other}
    reference.load_state_dict(weights)
    rows = torch.tensor([[5, 6, 7, 8, 9], [11, 12, 1, 1, 1], [30, 1, 1, 1, 1]])
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        model.embeddings(rows), [5, 2, 1], batch_first=True
    )
    state = reference(packed)[1]
    state = state[0] if cell == "lstm" else state
    expected = model.classifier(torch.cat(list(state), dim=1))
    torch.testing.assert_close(logits(model, rows.tolist()), expected.detach())


@pytest.mark.parametrize("cell", CELLS)
def test_the_head_reads_the_top_layer(cell):
    model = build(cell, num_layers=2)
    reference = CELLS[cell](8, 6, num_layers=2, batch_first=True)
    reference.load_state_dict(model.forwards.state_dict())
    ids = [5, 6, 7]
    states, _ = reference(model.embeddings(torch.tensor([ids])))
    expected = model.classifier(states[:, -1]).detach()
    torch.testing.assert_close(logits(model, [[*ids, 1, 1]]), expected)


@pytest.mark.parametrize("layers", [1, 2])
def test_dropout_between_layers_only(layers):
    config = TextRNNConfig(num_layers=layers, dropout=0.5, hidden_size=6, **SIZES)
    model = AutoModelForSequenceClassification.from_config(config)
    assert model.forwards.dropout == (0.5 if layers > 1 else 0)


def test_only_vectors_of_tokens_in_the_text_are_trained():
    model = build("gru", word_dropout=0.5, dropout=0.5).train()
    rows = torch.tensor([[5, 6, 7]])
    assert not torch.equal(model(rows).logits, model(rows).logits)
    model.eval()
    model(rows, labels=torch.tensor([1])).loss.backward()
    moved = model.get_input_embeddings().weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert moved.tolist() == [5, 6, 7]


def test_a_hidden_token_has_no_effect():
    model = build("lstm", word_dropout=0.999).train()
    hidden = [model(torch.tensor([[token, token + 1]])).logits for token in (5, 20)]
    torch.testing.assert_close(*hidden)


def test_the_cnn_compiles_to_one_graph():
    rows = torch.tensor([[5, 6, 7, 8], [9, 10, 1, 1]])
    assert torch._dynamo.explain(build("cnn"))(rows).graph_break_count == 0


# --- saving and loading --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer():
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    words += [f"word{i}" for i in range(40 - len(words))]
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[PAD]", model_max_length=16
    )


@each_network
def test_a_folder_loads_with_the_auto_classes_and_in_a_pipeline(name, tokenizer, tmp_path, caplog):
    names = {0: "praise", 1: "blame", 2: "neither"}
    model = build(
        name,
        id2label=names,
        label2id={label: i for i, label in names.items()},
        problem_type="multi_label_classification",
    )
    model.config.thresholds = [0.3, 0.4, 0.5]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert (config.id2label, config.thresholds) == (names, [0.3, 0.4, 0.5])
    assert config.problem_type == "multi_label_classification"
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    rows = [[5, 6, 7]]
    torch.testing.assert_close(logits(loaded, rows), logits(model, rows))

    texts = ["good film", "bad", "word3 " * 20]
    with caplog.at_level(logging.WARNING):
        classifier = pipeline("text-classification", model=str(tmp_path), top_k=None, device="cpu")
        results = classifier(texts, truncation=True, batch_size=3)
    assert caplog.text == ""
    for text, scores in zip(texts, results, strict=True):
        ids = tokenizer(text, truncation=True)["input_ids"]
        expected = torch.sigmoid(logits(model, [ids])[0]).tolist()
        scores = {item["label"]: item["score"] for item in scores}
        assert scores == pytest.approx(dict(zip(names.values(), expected, strict=True)), abs=1e-6)


@each_network
def test_a_head_of_another_size_starts_at_random(name, tmp_path):
    build(name).save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=7, ignore_mismatched_sizes=True
    )
    assert torch.isfinite(logits(loaded, [[5, 6, 7]])).all()
    assert loaded.classifier.weight.std() > 0.1
    assert torch.equal(loaded.embeddings.weight, build(name).embeddings.weight)


@pytest.mark.parametrize(
    ("problem_type", "labels", "expected"),
    [
        ("single_label_classification", torch.tensor([0, 2]), torch.nn.CrossEntropyLoss()),
        ("multi_label_classification", torch.eye(3)[:2], torch.nn.BCEWithLogitsLoss()),
    ],
)
def test_the_loss_follows_the_problem_type(problem_type, labels, expected):
    model = build("cnn", problem_type=problem_type)
    rows = torch.tensor([[5, 6, 7], [8, 9, 10]])
    output = model(rows, labels=labels)
    assert output.loss.item() == pytest.approx(expected(output.logits, labels).item())
    loss, scores = model(rows, labels=labels, return_dict=False)
    assert torch.equal(loss, output.loss)
    assert torch.equal(scores, output.logits)


# --- training ------------------------------------------------------------------------------------


@each_network
def test_a_network_learns_a_toy_task(name):
    """Train for a few steps to tell which of three tokens is in the text."""
    set_seed(0)
    rng = np.random.default_rng(0)
    config = type(CONFIGS[name])(**{**CONFIGS[name].to_dict(), "hidden_size": 16})
    model = AutoModelForSequenceClassification.from_config(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        rows, labels = toy_batch(rng)
        loss = model(rows, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    rows, labels = toy_batch(rng, 200)
    assert (logits(model.eval(), rows.tolist()).argmax(dim=1) == labels).float().mean() > 0.95


def toy_batch(rng, n=32):
    rows = rng.integers(10, 40, size=(n, 9))
    labels = rng.integers(0, 3, size=n)
    lengths = rng.integers(2, 10, size=n)
    rows[np.arange(n), rng.integers(0, lengths)] = 5 + labels
    rows[np.arange(9) >= lengths[:, None]] = 1
    return torch.tensor(rows), torch.tensor(labels)
