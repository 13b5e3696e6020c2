"""Models of architectures of this project load in a program that does not have the project."""

import json

import numpy as np
import pytest
import torch
from forks import run_script
from tiny_training import LABELS
from transformers import AutoModelForSequenceClassification, BertConfig, pipeline

from shared.models.forecasters import Forecaster, ForecasterConfig
from shared.models.heads import PooledForSequenceClassification
from shared.models.loading import load_encoder, load_sequence_classifier, load_tokenizer
from shared.models.lossless_tokenizers import train_lossless_tokenizer, train_pair_tokenizer
from shared.models.networks import TextCNNConfig, TextCNNForSequenceClassification
from shared.models.recurrent_generators import RecurrentForSeq2SeqLM, RecurrentSeq2SeqConfig
from shared.models.small_language_models import count_ngrams
from shared.models.text_generators import TransformerForCausalLM, TransformerForSeq2SeqLM
from shared.models.transformer import TransformerConfig, TransformerModel

TEXT = "the tokenizer drops a word"
# None in sys.modules makes `import shared` fail, as where this project is not installed.
PROGRAM = """
import json, sys
sys.modules["shared"] = None
from transformers import pipeline
classify = pipeline("text-classification", model=sys.argv[1], top_k=None, trust_remote_code=True)
(scores,) = classify([sys.argv[2]], truncation=True)
print(json.dumps({score["label"]: score["score"] for score in scores}))
"""


# transformers reads the variable HF_MODULES_CACHE when it is imported, before the fork.
CACHE = """
import transformers.dynamic_module_utils
transformers.dynamic_module_utils.HF_MODULES_CACHE = {!r}
"""


def run_elsewhere(program, folder, *words):
    """Run a program in a folder, where the code of models is cached; return what it printed."""
    code = CACHE.format(str(folder / "modules")) + program
    return run_script("-c", code, *words, cwd=folder).stdout


def save_pooled(tiny_model, tokenizer, folder):
    encoder = load_encoder(str(tiny_model), tokenizer=tokenizer)
    head = {"pooling": "attention", "n_layers": 2, "head_sizes": [8]}
    PooledForSequenceClassification.from_encoder(encoder, LABELS, **head).save_pretrained(folder)


def save_scratch(_, tokenizer, folder):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = TransformerConfig(vocab_size=len(tokenizer), intermediate_size=8, **sizes)
    encoder = TransformerModel(config)
    PooledForSequenceClassification.from_encoder(encoder, LABELS).save_pretrained(folder)


def save_network(_, tokenizer, folder):
    config = TextCNNConfig(
        vocab_size=len(tokenizer),
        embedding_size=8,
        pad_token_id=tokenizer.pad_token_id,
        problem_type="multi_label_classification",
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    TextCNNForSequenceClassification(config).save_pretrained(folder)


@pytest.mark.parametrize("save", [save_pooled, save_scratch, save_network])
def test_the_folder_works_without_this_project(save, tiny_model, tmp_path):
    torch.manual_seed(0)
    tokenizer = load_tokenizer(str(tiny_model))
    folder = tmp_path / "model"
    save(tiny_model, tokenizer, folder)
    tokenizer.save_pretrained(folder)
    printed = run_elsewhere(PROGRAM, tmp_path, folder, TEXT)
    elsewhere = json.loads(printed.splitlines()[-1])

    # Within this project, no code of the folder runs.
    model = load_sequence_classifier(str(folder), tokenizer=tokenizer)
    assert type(model).__module__.startswith("shared.models.")
    own = pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)
    (scores,) = own([TEXT])
    assert elsewhere == pytest.approx({s["label"]: s["score"] for s in scores}, abs=1e-6)
    # The config tells nobody where the encoder was on this machine.
    assert str(tiny_model) not in (folder / "config.json").read_text(encoding="utf-8")


WRITER = """
import json, sys
sys.modules["shared"] = None
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
start = tokenizer(tokenizer.bos_token + sys.argv[2], return_tensors="pt")
print(json.dumps(model.generate(**start, max_new_tokens=9, do_sample=False)[0].tolist()))
"""


def save_counts(tokenizer, folder):
    ids = np.array([1, *tokenizer(TEXT)["input_ids"], 1])
    model = count_ngrams(ids, 3, vocab_size=len(tokenizer), smoothing=0.1, boundary=1)
    model.save_pretrained(folder)
    return model


def save_gpt(tokenizer, folder):
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = TransformerConfig(vocab_size=len(tokenizer), intermediate_size=8, **sizes)
    model = TransformerForCausalLM(config)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("save", [save_counts, save_gpt])
def test_a_language_model_writes_without_this_project(save, tmp_path):
    torch.manual_seed(0)
    tokenizer = train_lossless_tokenizer([TEXT], "characters", 100)
    folder = tmp_path / "model"
    model = save(tokenizer, folder)
    tokenizer.save_pretrained(folder)
    printed = run_elsewhere(WRITER, tmp_path, folder, "the t")
    start = tokenizer(tokenizer.bos_token + "the t", return_tensors="pt")
    own = model.eval().generate(**start, max_new_tokens=9, do_sample=False)
    assert json.loads(printed.splitlines()[-1]) == own[0].tolist()


TRANSLATOR = """
import json, sys
sys.modules["shared"] = None
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
batch = tokenizer([sys.argv[2]], return_tensors="pt")
print(json.dumps(model.generate(**batch, max_new_tokens=9, num_beams=2)[0].tolist()))
"""


@pytest.mark.parametrize("encoder", ["gru", "bert"])
def test_an_encoder_decoder_writes_without_this_project(encoder, tmp_path):
    torch.manual_seed(0)
    tokenizer = train_pair_tokenizer([TEXT], 300)
    special = ("pad_token_id", "bos_token_id", "eos_token_id")
    settings = {name: getattr(tokenizer, name) for name in special}
    settings |= {"vocab_size": len(tokenizer), "hidden_size": 16, "num_attention_heads": 2}
    settings |= {"num_hidden_layers": 1, "intermediate_size": 8}
    own = {"copies_source": True, "decoder_start_token_id": tokenizer.bos_token_id}
    if encoder == "gru":
        model = RecurrentForSeq2SeqLM(RecurrentSeq2SeqConfig(**settings, **own))
    else:
        own["pretrained_encoder"] = BertConfig(**settings).to_dict()
        model = TransformerForSeq2SeqLM(TransformerConfig(**settings, **own))
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    printed = run_elsewhere(TRANSLATOR, tmp_path, folder, TEXT)
    batch = tokenizer([TEXT], return_tensors="pt")
    own = model.eval().generate(**batch, max_new_tokens=9, num_beams=2)
    assert json.loads(printed.splitlines()[-1]) == own[0].tolist()


FORECASTER = """
import json, sys
sys.modules["shared"] = None
import numpy as np
from transformers import AutoModel
model = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
print(json.dumps(model.forecast(np.arange(12.0)[:, None]).tolist()))
"""


def test_a_forecaster_works_without_this_project(tmp_path):
    torch.manual_seed(0)
    sizes = {"input_size": 12, "horizon": 3, "hidden_size": 8, "num_attention_heads": 2}
    model = Forecaster(ForecasterConfig(architecture="transformer", patch_size=4, **sizes)).eval()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    printed = run_elsewhere(FORECASTER, tmp_path, folder)
    forecast = model.forecast(np.arange(12.0)[:, None])
    np.testing.assert_allclose(json.loads(printed.splitlines()[-1]), forecast, rtol=1e-5)


def test_code_in_a_folder_is_not_run_by_default(tiny_model, tmp_path):
    tokenizer = load_tokenizer(str(tiny_model))
    save_pooled(tiny_model, tokenizer, tmp_path)
    (tmp_path / "heads.py").write_text("raise SystemExit('it ran')\n", encoding="utf-8")
    load_sequence_classifier(str(tmp_path))
    AutoModelForSequenceClassification.from_pretrained(tmp_path)
