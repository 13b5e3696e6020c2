import pytest
from command_line import Recipe, read_json, read_lines, write
from forks import run_script
from transformers import AutoTokenizer

from shared.models.tokenizers import ALGORITHMS, tokenization_statistics, train_tokenizer


@pytest.fixture
def flags(tiny_model, tiny_issues, tmp_path):
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--vocab_size", 90),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
        *("--held_out_share", 0.25, "--max_length", 32),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("train_tokenizer", monkeypatch, capfd, *flags)


def spy(recipe, monkeypatch):
    """Texts learned from, and measured on, by each run from now on."""
    learned, measured = [], []

    def learn(texts, *args, **kwargs):
        learned.append(list(texts))
        return train_tokenizer(learned[-1], *args, **kwargs)

    def measure(tokenizer, texts, **kwargs):
        measured.append(list(texts))
        return tokenization_statistics(tokenizer, measured[-1], **kwargs)

    monkeypatch.setattr(recipe.module, "train_tokenizer", learn)
    monkeypatch.setattr(recipe.module, "tokenization_statistics", measure)
    return learned, measured


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_folder_is_a_tokenizer_and_the_figures_are_its(
    algorithm, recipe, tmp_path, tiny_model, monkeypatch
):
    learned, measured = spy(recipe, monkeypatch)
    vocab_size = 300 if algorithm == "byte_bpe" else 90  # its bytes alone are 256
    printed = recipe("--algorithm", algorithm, "--vocab_size", vocab_size)
    assert (len(learned[0]), len(measured[0])) == (99, 33)
    assert not set(learned[0]) & set(measured[0])
    assert measured[0] == measured[1]

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3, 4]) == [
        *("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")
    ]
    assert len(tokenizer) <= vocab_size
    assert tokenizer.model_max_length == 32
    metrics = read_json(tmp_path / "out" / "metrics.json")
    tiny = AutoTokenizer.from_pretrained(tiny_model)
    for prefix, actual in (("", tokenizer), ("baseline_", tiny)):
        assert metrics[f"{prefix}vocab_size"] == len(actual)
        for name, value in tokenization_statistics(actual, measured[0], max_length=32).items():
            assert metrics[prefix + name] == value
    assert (metrics["train_samples"], metrics["test_samples"]) == (99, 33)

    sentence = " ".join(measured[0][0].split()[:15])
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for report in (printed, card):
        assert f"{metrics['fertility']:.2f}" in report
        assert f"{metrics['baseline_fertility']:.2f}" in report
        assert sentence in report
        for actual in (tokenizer, tiny):
            assert " ".join(actual.tokenize(sentence)) in report
    assert f'AutoTokenizer.from_pretrained("{tmp_path / "out"}")' in card


def test_same_seed_same_folder(recipe, tmp_path, monkeypatch):
    _, measured = spy(recipe, monkeypatch)
    actual = []
    for seed in (1, 1, 2):
        recipe("--seed", seed)
        content = (tmp_path / "out" / "tokenizer.json").read_bytes()
        actual.append((content, measured[-1], read_json(tmp_path / "out" / "metrics.json")))
        assert actual[-1][2].pop("train_runtime") > 0
    assert actual[0] == actual[1]
    assert actual[0][1] != actual[2][1]


def test_labels_are_not_needed_and_near_duplicates_stay_together(
    recipe, tmp_path, tiny_issues, monkeypatch
):
    rows = [{**row, "labels": []} for row in read_lines(tiny_issues)[:40]]
    again = [{**row, "body": row["body"] + " once more"} for row in rows]
    learned, measured = spy(recipe, monkeypatch)
    printed = recipe("--data", write(tmp_path / "twice.jsonl", rows + again))
    assert "60 texts to learn from, 20 to measure on" in printed
    assert not {text.removesuffix(" once more") for text in learned[0]} & {
        text.removesuffix(" once more") for text in measured[0]
    }


def test_compared_with_one_of_its_own(recipe, tmp_path):
    recipe("--output_dir", tmp_path / "first", "--lowercase", "false")
    first = read_json(tmp_path / "first" / "metrics.json")
    recipe("--model", tmp_path / "first", "--vocab_size", 60)
    second = read_json(tmp_path / "out" / "metrics.json")
    assert (second["vocab_size"], second["baseline_vocab_size"]) == (60, 90)
    assert second["baseline_fertility"] == first["fertility"]
    assert second["fertility"] > first["fertility"]
    recipe("--model", tmp_path / "out")  # read before it is written again
    third = read_json(tmp_path / "out" / "metrics.json")
    assert (third["vocab_size"], third["baseline_vocab_size"]) == (90, 60)


def test_a_vocabulary_that_the_texts_cannot_fill(recipe, tmp_path):
    printed = recipe("--vocab_size", 50_000, "--algorithm", "words", "--min_frequency", 20)
    size = len(AutoTokenizer.from_pretrained(tmp_path / "out"))
    assert f"note: the texts give {size:,} tokens, not 50,000" in printed
    assert 5 < size < 90


def test_one_of_two_processes_does_it(flags):
    process = run_script("recipes/train_tokenizer.py", *flags, processes=2)
    assert process.stdout.count("Everything is in") == 1
    assert "Warning" not in process.stderr
    assert "sequence length is longer" not in process.stderr


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--model", "./nowhere"], "--model ./nowhere: no such folder"),
        (["--algorithm", "bpr"], "--algorithm"),
        (["--vocab_size", 5], "--vocab_size 5: the special tokens alone are 5"),
        (["--vocab_size", 20], "--vocab_size 20: the special tokens and the characters"),
        (["--held_out_share", 1], "--held_out_share 1.0: must be above 0, below 1"),
        (["--held_out_share", 0.999], "--held_out_share 0.999: leaves none of 132 texts"),
        (["--algorithm", "words", "--min_frequency", 10_000], "no word occurs 10000 times"),
        (["--seed", -1], "--seed -1: must be 0 or more"),
    ],
)
def test_mistakes(wrong, expected, recipe):
    assert expected in recipe.mistake(*wrong)


def test_a_single_text_cannot_be_kept_back(recipe, tmp_path):
    data = write(tmp_path / "one.jsonl", [{"text": "only one"}])
    assert "leaves none of 1 texts" in recipe.mistake("--data", data)
