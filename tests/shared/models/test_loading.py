"""Loading of models and tokenizers: what is accepted, and what is refused with one line."""

import json
import shutil
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from forks import run_script
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
    T5Config,
)

from shared.cli.errors import UserError
from shared.methods.windows import split_into_windows
from shared.models.heads import PooledForSequenceClassification
from shared.models.loading import (
    load_encoder,
    load_masked_language_model,
    load_question_answerer,
    load_sequence_classifier,
    load_tokenizer,
    load_translator,
)
from shared.models.sources import choose_text_prefix
from shared.models.tokenizers import tokenize, tokenize_texts
from shared.training.adapters import adapt

ROOT = Path(__file__).parents[3]
LABELS = ["bug", "docs", "speed"]


@pytest.fixture
def folder(tiny_model, tmp_path):
    """Return a copy of the tiny model to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def refusal(function, *args, **kwargs):
    with pytest.raises(UserError) as error:
        function(*args, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    return message


# --- tokenizers ----------------------------------------------------------------------------------


def test_a_tokenizer_loads(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    assert tokenizer.pad_token == "[PAD]"
    assert tokenizer.tokenize("crash zz") == ["crash", "z", "##z"]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_truncated_tokenizer_is_refused(folder, name):
    (folder / name).write_text("{")
    assert refusal(load_tokenizer, str(folder)).startswith(f"{folder}: no usable tokenizer: ")


def test_a_tokenizer_file_of_another_format_is_refused(folder):
    (folder / "tokenizer.json").write_text("{}")
    assert refusal(load_tokenizer, str(folder)).startswith(f"{folder}: no usable tokenizer: ")


def test_a_saved_prefix_that_is_no_text_is_refused(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"text_prefix": 5}))
    assert choose_text_prefix(str(folder), None) is None
    message = refusal(load_tokenizer, str(folder))
    assert message.endswith("text_prefix in tokenizer_config.json is not a text")


def test_the_side_of_the_truncation_is_saved_with_the_tokenizer(folder, tmp_path):
    def ends(tokenizer):
        return tokenizer("crash typo slow", truncation=True, max_length=3)["input_ids"][1:-1]

    left, right = (load_tokenizer(str(folder), truncation_side=s) for s in ("left", "right"))
    crash, slow = (left.convert_tokens_to_ids([word]) for word in ("crash", "slow"))
    assert (ends(left), ends(right)) == (slow, crash)
    left.save_pretrained(tmp_path / "left")
    assert ends(load_tokenizer(str(tmp_path / "left"))) == slow
    assert ends(load_tokenizer(str(tmp_path / "left"), truncation_side="right")) == crash


def test_a_saved_side_of_the_truncation_that_is_none_is_refused(folder):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"truncation_side": "middle"}))
    assert refusal(load_tokenizer, str(folder)).startswith(f"{folder}: no usable tokenizer: ")


def test_a_missing_vocabulary_is_refused(folder):
    # transformers would build a tokenizer of special tokens only, to which all words are unknown.
    for path in folder.glob("*"):
        if path.suffix == ".txt" or "tokenizer" in path.name:
            path.unlink()
    message = refusal(load_tokenizer, str(folder))
    assert message.startswith(f"{folder}: no usable tokenizer: ")
    assert "vocabulary" in message


def test_a_tokenizer_without_a_padding_token_pads_with_the_end_token(folder):
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"pad_token": None, "eos_token": "[SEP]"}))
    assert load_tokenizer(str(folder)).pad_token == "[SEP]"
    path.write_text(json.dumps(settings | {"pad_token": None}))
    assert "neither a padding nor an end token" in refusal(load_tokenizer, str(folder))


# --- models --------------------------------------------------------------------------------------


def test_a_new_head_on_an_encoder(tiny_model):
    model = load_sequence_classifier(
        str(tiny_model), LABELS, tokenizer=load_tokenizer(str(tiny_model))
    )
    assert model.config.num_labels == 3
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {name: i for i, name in enumerate(LABELS)}
    assert model.config.problem_type == "multi_label_classification"
    encoder = load_file(tiny_model / "model.safetensors")
    for name, tensor in encoder.items():
        assert torch.equal(model.get_parameter(f"bert.{name}"), tensor)


def test_nothing_is_printed(tiny_model, capfd, caplog):
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    load_sequence_classifier(str(tiny_model), LABELS)
    assert capfd.readouterr() == ("", "")
    assert logging.get_verbosity() == verbosity


def test_attention_dropout_is_off_and_other_rates_can_be_set(folder):
    edit_config(folder, attention_probs_dropout_prob=0.1, hidden_dropout_prob=0.1)
    model = load_sequence_classifier(str(folder), LABELS)
    assert model.config.attention_probs_dropout_prob == 0.0
    assert model.config.hidden_dropout_prob == 0.1
    model = load_sequence_classifier(str(folder), LABELS, dropout=0.3)
    assert model.config.hidden_dropout_prob == 0.3


def test_a_saved_classifier_loads_unchanged(tiny_model, tmp_path):
    saved = load_sequence_classifier(str(tiny_model), LABELS)
    saved.config.thresholds = [0.25, 0.5, 0.75]
    saved.save_pretrained(tmp_path)
    model = load_sequence_classifier(str(tmp_path))
    assert model.config.thresholds == [0.25, 0.5, 0.75]
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.problem_type == "multi_label_classification"
    assert model.state_dict().keys() == saved.state_dict().keys()
    for name, tensor in saved.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    # With other labels, the head is replaced.
    assert load_sequence_classifier(str(tmp_path), ["a", "b"]).config.num_labels == 2


def test_a_pooled_classifier_loads_before_its_module_is_imported(tiny_model, tmp_path):
    from shared.models.loading import load_encoder

    tokenizer = load_tokenizer(str(tiny_model))
    encoder = load_encoder(str(tiny_model), tokenizer=tokenizer)
    PooledForSequenceClassification.from_encoder(encoder, LABELS).save_pretrained(tmp_path)
    code = (  # in a process that has not imported the module
        "import sys; from shared.models import load_sequence_classifier\n"
        "assert 'shared.models.heads' not in sys.modules\n"
        "model = load_sequence_classifier(sys.argv[1])\n"
        "print(type(model).__name__, *model.config.label2id)"
    )
    result = run_script("-c", code, tmp_path)
    assert result.stdout.split() == ["PooledForSequenceClassification", *LABELS]


def test_an_encoder_without_a_head_is_refused_as_a_classifier(tiny_model):
    message = refusal(load_sequence_classifier, str(tiny_model))
    assert "the weights lack 2 tensors of the model or" in message
    assert "first classifier.bias;" in message


def test_an_encoder_without_a_pooler_is_accepted(folder):
    edit_weights(folder, lambda tensors: {k: v for k, v in tensors.items() if "pooler" not in k})
    load_sequence_classifier(str(folder), LABELS)


# --- refused models ------------------------------------------------------------------------------


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [halve, zero, empty])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_file_is_refused(folder, name, damage):
    damage(folder / name)
    message = refusal(load_sequence_classifier, str(folder), LABELS)
    assert message.startswith(f"{folder}: cannot load the model: ")


def test_a_pickle_is_refused(folder):
    class Trap:
        def __reduce__(self):
            return sys.exit, ("the pickle was loaded",)

    torch.save({"x": Trap()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    message = refusal(load_sequence_classifier, str(folder), LABELS)
    assert "pickle (pytorch_model.bin)" in message
    assert "transformers.Bert" in message  # how to convert it


def test_code_in_the_folder_does_not_run(folder):
    (folder / "trap.py").write_text("raise SystemExit('the code was run')")
    auto_map = {"AutoConfig": "trap.C", "AutoModelForSequenceClassification": "trap.M"}
    edit_config(folder, auto_map=auto_map)
    load_sequence_classifier(str(folder), LABELS)
    edit_config(folder, model_type="trap")
    assert "custom code" in refusal(load_sequence_classifier, str(folder), LABELS)


@pytest.mark.parametrize("config", [{"model_type": "nonsense"}, {"model_type": None}])
def test_an_unknown_architecture_is_refused(folder, config):
    edit_config(folder, **config)
    assert "cannot load the model" in refusal(load_sequence_classifier, str(folder), LABELS)


def test_missing_tensors_of_the_encoder_are_refused(folder):
    missing = "encoder.layer.1.output.dense.weight"
    edit_weights(folder, lambda tensors: {k: v for k, v in tensors.items() if k != missing})
    message = refusal(load_sequence_classifier, str(folder), LABELS)
    assert message.startswith(f"{folder}: the weights lack 1 tensors of the model ")
    assert f"first bert.{missing};" in message


def test_weights_of_another_architecture_are_refused(folder):
    edit_config(folder, model_type="distilbert")
    assert "belong to another arch" in refusal(load_sequence_classifier, str(folder), LABELS)


@pytest.mark.parametrize("labels", [LABELS, None])
def test_weights_of_another_size_are_refused(folder, labels):
    # `ignore_mismatched_sizes`, set for the head, would start them at random without a warning.
    edit_config(folder, intermediate_size=48)
    message = refusal(load_sequence_classifier, str(folder), labels)
    assert message.startswith(f"{folder}: ")
    assert "another size, first bert.encoder.layer.0" in message or "mismatched" in message


def test_a_tokenizer_larger_than_the_embeddings_is_refused(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    load_sequence_classifier(str(tiny_model), LABELS, tokenizer=tokenizer)
    size = len(tokenizer)
    tokenizer.add_tokens(["oneword"])
    message = refusal(load_sequence_classifier, str(tiny_model), LABELS, tokenizer=tokenizer)
    expected = f"the tokenizer has {size + 1} tokens but the model only {size} embeddings"
    assert expected in message


def test_a_config_value_of_the_wrong_type_is_refused(folder):
    edit_config(folder, hidden_size="wide")
    message = refusal(load_sequence_classifier, str(folder), LABELS)
    assert message == f"{folder}/config.json: hidden_size 'wide' is no whole number"


def test_a_config_without_a_padding_token_gets_that_of_the_tokenizer(folder):
    edit_config(folder, pad_token_id=None)
    tokenizer = load_tokenizer(str(folder))
    model = load_sequence_classifier(str(folder), LABELS, tokenizer=tokenizer)
    assert model.config.pad_token_id == tokenizer.pad_token_id is not None


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_an_encoder_decoder_gets_the_end_token_of_its_tokenizer(name, tmp_path):
    folder = save_tiny_model(tmp_path, name, ["crash"])
    edit_config(folder, eos_token_id=2)
    tokenizer = load_tokenizer(str(folder))
    model = load_sequence_classifier(str(folder), LABELS, tokenizer=tokenizer)
    assert model.config.eos_token_id == tokenizer.eos_token_id == 3


SMALL = {
    "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        BertConfig(**SMALL),
        RobertaConfig(**SMALL, max_position_embeddings=34, pad_token_id=1),
        DistilBertConfig(vocab_size=20, dim=8, n_layers=1, n_heads=2, hidden_dim=8),
        ModernBertConfig(**SMALL, pad_token_id=0),
        DebertaV2Config(**SMALL, pad_token_id=0, pooler_hidden_size=8),
    ],
    ids=lambda config: config.model_type,
)
def test_dropout_is_set_in_all_layers_but_the_attention(config, tmp_path):
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    model = load_sequence_classifier(str(tmp_path), LABELS, dropout=0.3)
    rates = {
        name: module.p
        for name, module in model.named_modules()
        if type(module).__name__.endswith("Dropout") and "attention.self" not in name
    }
    assert rates
    assert {round(p, 1) for name, p in rates.items() if "attention" not in name} == {0.3}


def test_the_pickle_of_a_translator_is_refused_with_the_way_out(tmp_path):
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    config.save_pretrained(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "transformers.AutoModel.from_pretrained" in refusal(load_translator, str(tmp_path))


# --- outputs, padding, prefixes ------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting", [{"output_hidden_states": True}, {"output_attentions": True}, {"return_dict": False}]
)
def test_outputs_that_a_config_asks_for_change_nothing(setting, folder):
    edit_config(folder, **setting)
    tokenizer = load_tokenizer(str(folder))
    ids = tokenizer("a crash", return_tensors="pt")["input_ids"]
    for load, output in (
        (lambda: load_sequence_classifier(str(folder), LABELS, tokenizer=tokenizer), "logits"),
        (lambda: load_encoder(str(folder), tokenizer=tokenizer), "last_hidden_state"),
        (lambda: load_masked_language_model(str(folder), tokenizer=tokenizer, new_head=True), None),
    ):
        model = load()
        result = model(input_ids=ids)
        assert result[output or "logits"] is not None
        assert not {"hidden_states", "attentions"} & set(result)


def test_a_new_masked_language_head_has_no_uninitialised_weights(tmp_path):
    for name in ("longformer", "fnet", "nystromformer", "bert"):
        folder = save_tiny_model(tmp_path / name, name, ["crash", "docs"])
        tokenizer = load_tokenizer(str(folder))
        # Fresh memory is filled with NaN.
        torch.use_deterministic_algorithms(True)
        try:
            model = load_masked_language_model(str(folder), tokenizer=tokenizer, new_head=True)
        finally:
            torch.use_deterministic_algorithms(False)
        for key, parameter in model.named_parameters():
            assert torch.isfinite(parameter).all(), f"{name}: {key}"


def test_what_transformers_cannot_do_with_an_architecture_is_named(tmp_path):
    folder = str(save_tiny_model(tmp_path, "llama", ["crash", "docs"]))
    tokenizer = load_tokenizer(folder)
    message = refusal(load_masked_language_model, folder, tokenizer=tokenizer)
    assert "transformers has no masked language model for llama models" in message


def test_nothing_that_is_measured_when_loading_changes_the_random_numbers(folder):
    tokenizer = load_tokenizer(str(folder))
    heads = []
    for options in ({}, {"tokenizer": tokenizer}):
        torch.manual_seed(0)
        load_sequence_classifier(str(folder), LABELS, **options)
        heads.append(torch.rand(3))
    torch.testing.assert_close(heads[0], heads[1])


def test_weights_that_are_not_finite_are_refused(folder):
    def spoil(tensors):
        name = next(name for name in tensors if "layer.0" in name)
        return {**tensors, name: torch.full_like(tensors[name], float("nan"))}

    edit_weights(folder, spoil)
    message = refusal(load_encoder, str(folder), tokenizer=load_tokenizer(str(folder)))
    assert "not finite" in message


def test_models_that_cannot_compute_in_bfloat16_compute_in_single_precision(tmp_path, capsys):
    folder = str(save_tiny_model(tmp_path, "deberta", ["crash", "docs"]))
    tokenizer = load_tokenizer(folder)
    model = load_sequence_classifier(folder, LABELS, tokenizer=tokenizer)
    assert "deberta models cannot compute in bfloat16" in capsys.readouterr().out
    ids = tokenizer("crash docs", return_tensors="pt")
    expected = model(**ids).logits
    for copy in (model, deepcopy(model)):
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(copy(**ids).logits, expected, rtol=0, atol=0)
    model.save_pretrained(tmp_path / "saved")  # the config names the class, which has not changed
    assert model.config.architectures == ["DebertaForSequenceClassification"]


def test_a_prefix_stands_before_each_text_and_is_saved(folder, tmp_path):
    tokenizer = load_tokenizer(str(folder), "docs crash ")
    plain = load_tokenizer(str(folder))
    expected = plain("docs crash slow")["input_ids"]
    assert tokenize_texts(tokenizer, ["slow"])["input_ids"] == [expected]
    assert split_into_windows(tokenizer, ["slow"], stride=0)[0] == [expected]
    rows = tokenize(Dataset.from_dict({"text": ["slow"]}), tokenizer)
    assert rows["input_ids"][:] == [expected]
    # Pairs of sentences have none.
    pair = plain("slow", "crash")["input_ids"]
    assert tokenize_texts(tokenizer, ["slow"], ["crash"])["input_ids"] == [pair]
    tokenizer.save_pretrained(tmp_path / "saved")
    for prefix, ids in ((None, expected), ("", plain("slow")["input_ids"])):
        again = load_tokenizer(str(tmp_path / "saved"), prefix)
        assert tokenize_texts(again, ["slow"])["input_ids"] == [ids]


@pytest.fixture(scope="module")
def adapter(tiny_model, tmp_path_factory):
    """An adapter of a classifier with the labels a, b and c, and the query weights with it."""
    folder = tmp_path_factory.mktemp("adapter") / "adapter"
    tokenizer = load_tokenizer(str(tiny_model))
    base = load_sequence_classifier(str(tiny_model), ["a", "b", "c"], tokenizer=tokenizer)
    base.save_pretrained(folder.parent / "base")
    base.name_or_path = str(folder.parent / "base")
    adapted = adapt(base, "lora", rank=2)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    for part in (adapted, adapted.config, tokenizer):
        part.save_pretrained(folder)
    return folder, adapted.merge_and_unload()


@pytest.mark.parametrize("names", [["a", "b"], ["x", "y", "z"]])
def test_the_encoder_of_an_adapter_gets_a_head_for_other_labels(adapter, tiny_model, names):
    folder, merged = adapter
    tokenizer = load_tokenizer(str(folder))
    encoder = load_encoder(str(folder), tokenizer=tokenizer)
    model = load_sequence_classifier(str(folder), names, tokenizer=tokenizer)
    assert list(model.config.id2label.values()) == names
    assert model.classifier.weight.shape == (len(names), 32)
    for loaded in (encoder, model.base_model):
        expected = merged.base_model.state_dict()
        for name, weight in loaded.state_dict().items():
            torch.testing.assert_close(weight, expected[name], msg=name)
    plain = load_encoder(str(tiny_model), tokenizer=tokenizer)
    name = "encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(plain.state_dict()[name], encoder.state_dict()[name])


def test_an_adapter_keeps_its_head_for_its_own_labels(adapter):
    folder, merged = adapter
    tokenizer = load_tokenizer(str(folder))
    model = load_sequence_classifier(str(folder), ["a", "b", "c"], tokenizer=tokenizer)
    torch.testing.assert_close(model.classifier.weight, merged.classifier.weight)


def test_an_encoder_gets_heads_for_answers(adapter, tiny_model, tmp_path):
    folder, merged = adapter
    tokenizer = load_tokenizer(str(folder))
    with pytest.raises(UserError, match="adapter: has no heads for answers; train them"):
        load_question_answerer(str(folder), tokenizer=tokenizer)
    # Those of a classifier with other labels, and of its adapter.
    for source, expected in ((folder, merged), (folder.parent / "base", None)):
        model = load_question_answerer(str(source), tokenizer=tokenizer, new_head=True)
        assert model.qa_outputs.weight.shape == (2, 32)
        if expected is not None:
            for name, weight in model.base_model.state_dict().items():
                torch.testing.assert_close(weight, expected.base_model.state_dict()[name])
        model.save_pretrained(tmp_path)
    again = load_question_answerer(str(tmp_path), tokenizer=tokenizer).eval()
    plain = AutoModelForQuestionAnswering.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[2, 7, 3, 9, 3]])
    with torch.no_grad():
        logits, expected = again(input_ids=ids)["logits"], plain(input_ids=ids)
    torch.testing.assert_close(logits[..., 0], expected.start_logits)
    torch.testing.assert_close(logits[..., 1], expected.end_logits)


def test_virtual_tokens_give_no_encoder(tiny_model, tmp_path):
    tokenizer = load_tokenizer(str(tiny_model))
    base = load_sequence_classifier(str(tiny_model), ["a", "b"], tokenizer=tokenizer)
    adapted = adapt(base, "prompt", prompt_tokens=3)
    for part in (adapted, adapted.config):
        part.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="virtual tokens of prompt tuning are no part"):
        load_encoder(str(tmp_path), tokenizer=tokenizer)
