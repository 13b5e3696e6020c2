import gzip
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_models import save_tiny_model
from transformers import AutoModel

from shared.cli.errors import UserError
from shared.models.from_scratch import Seq2SeqArguments, build_seq2seq_model, read_word_vectors
from shared.models.loading import load_encoder, load_tokenizer, load_translator
from shared.models.lossless_tokenizers import train_pair_tokenizer

VOCABULARY = {"[UNK]": 0, "good": 5, "bad": 6, ". .": 7, "film": 8}
LINES = [
    "good 1 2.5 -3",
    "elsewhere 9 9 9",
    ". . 4 5 6",
    "bad 0 0 1e-2",
    "good 7 7 7",
    "good film 8 8 8",
]


def write(path, lines, compressed=False):
    text = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text) if compressed else text)
    return str(path)


@pytest.mark.parametrize("header", [[], ["5 3"]])
@pytest.mark.parametrize("name", ["vectors.txt", "vectors.txt.gz"])
def test_vectors_of_the_vocabulary_are_read(tmp_path, header, name):
    path = write(tmp_path / name, [*header, *LINES], compressed=name.endswith(".gz"))
    ids, vectors = read_word_vectors(path, VOCABULARY)
    assert ids.tolist() == [5, 7, 6]
    assert vectors.dtype == np.float32
    expected = [[1, 2.5, -3], [4, 5, 6], [0, 0, 0.01]]  # the first of two vectors of a token
    np.testing.assert_allclose(vectors, expected)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["good 1 2 3", "bad 1 x 3"], "line 2: expected a token and 3 numbers"),
        (["good 1 2 3", "bad 1 nan 3"], "line 2: expected a token and 3 numbers"),
        (["good 1 2 3", "bad 1 2"], "line 2: expected a token and 3 numbers"),
        (["good 1 2 3 4 5", "bad 1 2"], "line 2: expected a token and 5 numbers"),
        (["elsewhere 1 2 3 4", "good 1 2"], "line 2: expected a token and 4 numbers"),
        (["good"], "line 1: expected a token and some numbers"),
        (["elsewhere 1 2 3"], "has no vector for any of the 5 tokens"),
        ([], "has no vector for any of the 5 tokens"),
    ],
)
def test_files_without_usable_vectors_are_refused(tmp_path, lines, expected):
    path = write(tmp_path / "vectors.txt", lines)
    with pytest.raises(UserError) as error:
        read_word_vectors(path, VOCABULARY)
    assert f"{path}" in str(error.value)
    assert expected in str(error.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.txt: cannot be read \(No such file"):
        read_word_vectors(str(tmp_path / "nowhere.txt"), VOCABULARY)
    with pytest.raises(UserError, match=r"cannot be read \(Not a gzipped file"):
        read_word_vectors(write(tmp_path / "plain.gz", LINES), VOCABULARY)
    whole = gzip.compress(" ".join(LINES).encode() * 100)
    (tmp_path / "half.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"half.gz: cannot be read"):
        read_word_vectors(str(tmp_path / "half.gz"), VOCABULARY)


def seq2seq(architecture, **flags):
    tokenizer = train_pair_tokenizer(["the cat sat on the mat"], 300)
    args = SimpleNamespace(**vars(Seq2SeqArguments(**flags)), architecture=architecture)
    args.max_source_length, args.max_target_length = 20, 8
    return build_seq2seq_model(args, tokenizer), tokenizer


@pytest.mark.parametrize("architecture", ["parts", "rnn"])
def test_an_encoder_decoder_fits_its_tokenizer(architecture):
    flags = {"hidden_size": 64, "num_decoder_layers": 2, "copy": True}
    model, tokenizer = seq2seq(architecture, **flags)
    assert len(model.get_input_embeddings().weight) == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert model.config.decoder_start_token_id == tokenizer.bos_token_id
    assert model.config.num_hidden_layers == {"parts": 3, "rnn": 1}[architecture]
    assert hasattr(model, "copy_head")


WORDS = ["the", "cat", "sat", "on", "a", "mat"]


def with_encoder(folder, *, cls_token="[CLS]", **flags):
    tokenizer = load_tokenizer(str(folder))
    tokenizer.cls_token = cls_token
    encoder = load_encoder(str(folder), tokenizer=tokenizer)
    args = SimpleNamespace(**vars(Seq2SeqArguments(encoder="x", **flags)), architecture="parts")
    args.max_source_length, args.max_target_length = 20, 8
    return build_seq2seq_model(args, tokenizer, encoder)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet", "modernbert"])
def test_a_pretrained_encoder_keeps_its_weights_and_saves_its_config(name, tmp_path):
    folder = save_tiny_model(tmp_path / "encoder", name, WORDS)
    model = with_encoder(folder, num_decoder_layers=1, copy=True).eval()
    assert len(model.decoder.blocks) == 1
    before = AutoModel.from_pretrained(folder).get_input_embeddings().weight
    for after in (model.lm_head.weight, model.decoder.embeddings.tokens.weight):
        assert torch.equal(before, after)
    model.save_pretrained(tmp_path / "saved")
    assert str(tmp_path) not in (tmp_path / "saved" / "config.json").read_text(encoding="utf-8")
    again = load_translator(str(tmp_path / "saved"))
    assert type(again.encoder) is type(model.encoder)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        expected = model(ids, decoder_input_ids=ids).logits
        assert torch.equal(again(ids, decoder_input_ids=ids).logits, expected)
    # A step of training reaches every weight: on several processes each needs a gradient.
    model(ids, labels=ids).loss.backward()
    unused = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert unused == []


def test_an_encoder_that_does_not_fit_is_refused(tiny_model, tmp_path):
    with pytest.raises(UserError, match="of width 32: must be a multiple of --num_attention_heads"):
        with_encoder(tiny_model, num_attention_heads=5)
    with pytest.raises(UserError, match="x: its texts have no start and no end token; name an enc"):
        with_encoder(tiny_model, cls_token=None)
    for name, line in {
        "bart": "an encoder-decoder; name it with --architecture",
        "t5": "an encoder-decoder; name it with --architecture",
        "fnet": "fnet models mix padding into texts or need single precision",
        "electra": r"its token vectors \(16\) are not as wide as its states \(32\)",
    }.items():
        with pytest.raises(UserError, match=f"--encoder x: .*{line}"):
            with_encoder(save_tiny_model(tmp_path / name, name, WORDS))


def test_tokens_start_as_large_as_their_positions():
    embeddings = seq2seq("parts", hidden_size=64)[0].encoder.stack.embeddings
    tokens = embeddings.tokens.weight[:-2] * embeddings.scale
    assert float(tokens.detach().std()) == pytest.approx(1, rel=0.1)
    assert embeddings.position_table.shape[0] == 24
