import itertools
import json
import re
import weakref
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from shared.cli.errors import UserError
from shared.models.tokenizers import (
    ALGORITHMS,
    check_unknown_tokens,
    count_tokens,
    describe_unknown_tokens,
    tokenization_statistics,
    tokenize_texts,
    train_tokenizer,
    unknown_token_share,
)

CHINESE = "".join(map(chr, range(0x4E00, 0x4F00)))  # 256 characters
HUGS = ["hug"] * 10 + ["pug"] * 5 + ["pun"] * 12 + ["bun"] * 4 + ["hugs"] * 5
SPECIAL = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
every = pytest.mark.parametrize("algorithm", ALGORITHMS)
BYTES = 261  # the smallest vocabulary of byte_bpe: all bytes, and the special tokens


def size_for(algorithm, size):
    """Return a vocabulary size: `size`, or as much above the smallest one of bytes."""
    return BYTES + size if algorithm == "byte_bpe" else size


def prose(n=300, seed=0):
    """Return texts of random words, many of them equally frequent, with signs and accents."""
    rng = np.random.default_rng(seed)
    letters = list("abcdefghijklmnoprstuéß")
    words = ["".join(rng.choice(letters, size=rng.integers(1, 9))) for _ in range(150)]
    texts = (rng.choice(words, size=rng.integers(3, 12)) for _ in range(n))
    return [", ".join(text[:2]) + " " + " ".join(text[2:]).capitalize() + "." for text in texts]


def vocabulary(tokenizer):
    return tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))


def merges(tokenizer):
    return json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]


def test_the_first_merges_are_the_most_frequent_pairs():
    tokenizer = train_tokenizer(HUGS, "bpe", 15)
    assert vocabulary(tokenizer) == [*SPECIAL, *"bghnpsu", "ug", "un", "hug"]
    assert merges(tokenizer) == [["u", "g"], ["u", "n"], ["h", "ug"]]
    assert tokenizer.tokenize("bug") == ["b", "ug"]
    assert tokenizer.tokenize("mug") == ["[UNK]", "ug"]


def plain_bpe(words, n_merges, min_frequency):
    """Sennrich et al. 2016, algorithm 1; ties go to the pair with smaller ids."""
    words = {word: list(word) for word in words}, Counter(words)
    ids = {symbol: i for i, symbol in enumerate(sorted(set("".join(words[0]))))}
    merged = []
    while len(merged) < n_merges:
        pairs = Counter()
        for word, symbols in words[0].items():
            for pair in itertools.pairwise(symbols):
                pairs[pair] += words[1][word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        if pairs[best] < min_frequency:
            break
        ids.setdefault("".join(best), len(ids))
        merged.append(list(best))
        for symbols in words[0].values():
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i : i + 2] = ["".join(best)]
                i += 1
    return merged


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("abcde", min_size=1, max_size=8), min_size=1, max_size=30),
    st.integers(1, 3),
)
def test_bpe_merges_as_in_the_paper(words, min_frequency):
    size = len(SPECIAL) + len(set("".join(words))) + 12
    tokenizer = train_tokenizer(words, "bpe", size, min_frequency=min_frequency)
    assert merges(tokenizer) == plain_bpe(words, 12, min_frequency)


def test_words_are_the_most_frequent_words():
    texts = prose()
    tokenizer = train_tokenizer(texts, "words", 50)
    counts = Counter(re.findall(r"\w+|[^\w\s]", " ".join(texts).lower()))
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:45]
    assert vocabulary(tokenizer) == [*SPECIAL, *expected]
    often = train_tokenizer(texts, "words", 5000, min_frequency=12)
    assert set(vocabulary(often)[5:]) == {word for word, n in counts.items() if n >= 12}
    assert tokenizer.tokenize("Zyxw, " + expected[3]) == ["[UNK]", ",", expected[3]]


def test_wordpiece_takes_the_longest_piece_from_the_left():
    tokenizer = train_tokenizer(HUGS, "wordpiece", 25)
    tokens = vocabulary(tokenizer)
    assert tokens[:19] == [*SPECIAL, *"bghnpsu", *(f"##{letter}" for letter in "bghnpsu")]
    assert {"##ug", "##un", "hug"} < set(tokens[19:])
    assert tokenizer.tokenize("hug hugs bug") == ["hug", "hug", "##s", "b", "##ug"]
    assert tokenizer.tokenize("hum") == ["[UNK]"]
    assert tokenizer.decode(tokenizer("bug hugs")["input_ids"], skip_special_tokens=True) == (
        "bug hugs"
    )


def test_unigram_takes_the_most_likely_pieces():
    texts = prose()
    tokenizer = train_tokenizer(texts, "unigram", 120)
    pieces = dict(json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"])

    def likeliest(word):
        best = [(0.0, [])]
        for end in range(1, len(word) + 1):
            ways = [
                (best[start][0] + pieces[word[start:end]], [*best[start][1], word[start:end]])
                for start in range(end)
                if word[start:end] in pieces
            ]
            best.append(max(ways))
        return best[-1]

    for word in " ".join(texts[:40]).lower().split():
        tokens = tokenizer.tokenize(word)
        assert sum(pieces[piece] for piece in tokens) == pytest.approx(likeliest("▁" + word)[0])
        assert "".join(tokens) == "▁" + word


@every
def test_special_tokens_and_templates(algorithm):
    tokenizer = train_tokenizer(prose(), algorithm, size_for(algorithm, 200), max_length=9)
    assert vocabulary(tokenizer)[:5] == SPECIAL
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]
    for i, name in enumerate(("unk", "pad", "cls", "sep", "mask")):
        assert getattr(tokenizer, f"{name}_token_id") == i
    one, other, *_ = prose()
    a, b = (
        tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for text in (one, other)
    )
    assert not {1, 2, 3, 4} & {*a, *b}
    assert tokenizer(one)["input_ids"] == [2, *a, 3]
    pair = tokenizer(one, other, return_token_type_ids=True)
    assert pair["input_ids"] == [2, *a, 3, *b, 3]
    assert pair["token_type_ids"] == [0] * (len(a) + 2) + [1] * (len(b) + 1)
    assert len(tokenizer(one * 3, truncation=True)["input_ids"]) == 9
    batch = tokenizer(["a", one], padding=True)
    assert batch["input_ids"][0][-1] == 1
    assert batch["attention_mask"][0][-1] == 0


@every
def test_a_saved_tokenizer_loads_unchanged(algorithm, tmp_path):
    texts = prose()
    tokenizer = train_tokenizer(texts, algorithm, size_for(algorithm, 200), max_length=77)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    odd = [*texts, "naïve 日本 😀 [MASK]", "", "A\tB\n\n c"]
    assert loaded(odd)["input_ids"] == tokenizer(odd)["input_ids"]
    assert loaded(odd, odd)["input_ids"] == tokenizer(odd, odd)["input_ids"]
    ids = tokenizer(texts[0])["input_ids"]
    assert loaded.decode(ids) == tokenizer.decode(ids)
    assert loaded.model_max_length == 77
    assert loaded.mask_token_id == 4


@every
@pytest.mark.parametrize("size", [120, 100_000])
def test_the_same_texts_give_the_same_tokenizer(algorithm, size, monkeypatch):
    texts = prose()
    results = set()
    for order in (texts, texts[::-1], sorted(texts)):
        for parallel in ("false", "true"):
            monkeypatch.setenv("TOKENIZERS_PARALLELISM", parallel)
            tokenizer = train_tokenizer(iter(order), algorithm, size_for(algorithm, size))
            results.add(tokenizer.backend_tokenizer.to_str())
    assert len(results) == 1


# Without the bracket that begins a special token: in a text, that is a special token, too.
any_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="["), max_size=30)


@every
@settings(max_examples=30, deadline=None)
@given(texts=st.lists(any_text, min_size=1, max_size=10), other=any_text, lowercase=st.booleans())
def test_any_text_can_be_learned_and_decoded(algorithm, texts, other, lowercase):
    if not any(text.strip() for text in texts):
        texts.append("ä")
    size = 1000
    tokenizer = train_tokenizer(
        texts, algorithm, size, min_frequency=1, lowercase=lowercase, max_length=100
    )
    assert len(tokenizer) <= size
    for text in (*texts, other):
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (2, 3)
        assert max(ids) < len(tokenizer)
    # Nothing is learned from a text that is blank to Python, such as U+001F alone. The library does
    # not count that character as white space, and it may be unknown.
    for text in filter(str.strip, texts):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        if algorithm in ("bpe", "unigram", "byte_bpe", "characters"):
            normalized = tokenizer.backend_tokenizer.normalizer.normalize_str(text)
            assert tokenizer.decode(ids) == normalized
            assert 0 not in ids
        again = tokenizer(tokenizer.decode(ids), add_special_tokens=False)["input_ids"]
        assert again == ids


def test_lower_case_is_optional():
    texts = ["Hug hug"] * 3
    assert train_tokenizer(texts, "words", 10).tokenize("HUG Hug") == ["hug", "hug"]
    kept = train_tokenizer(texts, "words", 10, lowercase=False)
    assert kept.tokenize("HUG Hug") == ["[UNK]", "Hug"]


def test_accents_are_stripped_on_request_and_vowel_signs_stay():
    texts = ["Café Ünal naïve кафе ทำที่นี่ हिन्दी"] * 2
    plain = train_tokenizer(texts, "characters", 100, strip_accents=True)
    normalize = plain.backend_tokenizer.normalizer.normalize_str
    assert normalize(texts[0]) == normalize("cafe unal naive кафе ทำที่นี่ हिन्दी")
    assert normalize("ทำที่นี่ हिन्दी é e\u0301") == normalize("ทำที่นี่ हिन्दी") + " e e"
    assert plain.tokenize("É") == ["e"]
    assert train_tokenizer(texts, "characters", 100).tokenize("É") == ["é"]


def test_bytes_know_every_text():
    tokenizer = train_tokenizer(["hug the bug"] * 3, "byte_bpe", BYTES + 4)
    assert len(tokenizer) == BYTES + 4
    for text in ("bug hugs", "日本 😀", "naïve\u0000"):
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(tokenizer("日", add_special_tokens=False)["input_ids"]) == 3


def test_characters_are_the_most_frequent_ones():
    tokenizer = train_tokenizer(["aab b", "a c"], "characters", 8)
    assert vocabulary(tokenizer) == [*SPECIAL, "a", "b", "▁"]
    assert tokenizer.tokenize("ab ca") == ["a", "b", "▁", "[UNK]", "a"]
    with pytest.raises(UserError, match="no character occurs 9 times"):
        train_tokenizer(["aab"], "characters", 8, min_frequency=9)


@every
def test_texts_are_not_kept_in_memory(algorithm):
    class Text(str):
        pass

    alive, most = weakref.WeakSet(), 0

    def texts():
        nonlocal most
        for text in prose(2000):
            text = Text(text)
            alive.add(text)
            most = max(most, len(alive))
            yield text

    train_tokenizer(texts(), algorithm, 500)
    assert most < 600


@pytest.mark.parametrize(
    ("texts", "algorithm", "size", "expected"),
    [
        (HUGS, "bpe", 5, "--vocab_size 5: the special tokens alone are 5"),
        (HUGS, "words", 0, "--vocab_size 0: the special tokens alone"),
        (HUGS, "bpe", 11, "--vocab_size 11: the special tokens and the characters .* are 12;"),
        (HUGS, "wordpiece", 18, "--vocab_size 18: .* are 19;"),
        (HUGS, "unigram", 12, "--vocab_size 12: .* are 13;"),
        (HUGS, "byte_bpe", 60, "--vocab_size 60: .* and the bytes alone are 261;"),
        ([CHINESE], "unigram", 100, "--vocab_size 100: the texts have more different characters"),
        (HUGS, "bpr", 15, "--algorithm bpr: must be one of bpe, wordpiece, unigram, words"),
        ([], "bpe", 15, "no text to learn a vocabulary from"),
        (["", " \n"], "unigram", 15, "no text to learn a vocabulary from"),
        (["hug pug"], "words", 15, "nothing to learn: no word occurs 2 times or more"),
        (["▁"], "unigram", 15, "nothing to learn"),
    ],
)
def test_wrong_settings_and_texts_are_refused(texts, algorithm, size, expected):
    with pytest.raises(UserError, match=expected):
        train_tokenizer(texts, algorithm, size)


@every
def test_the_smallest_vocabulary_has_special_tokens_and_characters(algorithm):
    if algorithm == "words":
        assert vocabulary(train_tokenizer(HUGS, "words", 6)) == [*SPECIAL, "pun"]
        return
    sizes = {"bpe": 12, "wordpiece": 19, "unigram": 13, "byte_bpe": BYTES, "characters": 12}
    size = sizes[algorithm]
    tokens = vocabulary(train_tokenizer(HUGS, algorithm, size))
    assert len(tokens) == size
    assert set("bghnpsu") < set(tokens)


@every
def test_statistics_agree_with_a_plain_count(algorithm):
    tokenizer = train_tokenizer(prose(), algorithm, size_for(algorithm, 100))
    texts = [*prose(40, seed=1), "日本 x_y", "(?!)"]
    words = split = tokens = unknown = truncated = 0
    for text in texts:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        for match in re.finditer(r"[日本]|\w+|[^\w\s]", text):
            characters = set(range(*match.span()))
            words += 1
            split += sum(bool(characters & {*range(*o)}) for o in encoded["offset_mapping"]) > 1
        tokens += len(encoded["input_ids"])
        unknown += encoded["input_ids"].count(0)
        truncated += len(tokenizer(text)["input_ids"]) > 14
    assert 0 < truncated < len(texts)
    assert tokenization_statistics(tokenizer, iter(texts), max_length=14) == {
        "fertility": tokens / words,
        "words_split": split / words,
        "unknown_tokens": unknown / tokens,
        "tokens_per_text": tokens / len(texts),
        "texts_cut": truncated / len(texts),
    }


# --- scripts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["words", "wordpiece"])
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("体育新闻。好", [*"体育新闻。好"]),
        ("กินไม่ดี", ["กิ", "น", "ไ", "ม่", "ดี"]),
    ],
)
def test_characters_of_scripts_without_spaces_are_words(algorithm, text, tokens):
    tokenizer = train_tokenizer([text, text], algorithm, 60)
    assert tokenizer.tokenize(text) == tokens
    # However long a sentence without spaces is, it has known tokens.
    assert tokenizer.unk_token not in tokenizer.tokenize(text * 50)
    measured = tokenization_statistics(tokenizer, [text])
    assert (measured["fertility"], measured["unknown_tokens"]) == (1, 0)


def test_a_note_names_no_recipe_that_a_copy_lacks(monkeypatch, tmp_path):
    assert "or the recipe naive_bayes" in describe_unknown_tokens(0.5)
    monkeypatch.setattr("shared.models.tokenizers.ROOT", tmp_path)
    assert describe_unknown_tokens(0.5).endswith("from the texts")


def test_the_share_of_unknown_tokens_leaves_special_ones_out(capsys):
    tokenizer = train_tokenizer(HUGS, "words", 50)
    tokens = tokenize_texts(tokenizer, ["hug what pug bun", "", "hugs hug hug hug"])
    assert unknown_token_share(tokens, tokenizer) == 1 / 8
    assert unknown_token_share(tokenize_texts(tokenizer, [""]), tokenizer) == 0
    assert check_unknown_tokens(tokenizer, ["体育", "hug"]) == 2 / 3
    assert "note: unknown tokens: 66.7%; the model cannot read them" in capsys.readouterr().out
    assert check_unknown_tokens(tokenizer, ["hug"]) == 0
    assert capsys.readouterr().out == "unknown tokens: 0.0%\n"


def test_a_tokenizer_whose_unknown_token_has_other_uses_knows_all_bytes():
    tokenizer = train_tokenizer(HUGS, "words", 50)
    tokens = tokenize_texts(tokenizer, ["what"])
    tokenizer.pad_token = tokenizer.unk_token
    assert unknown_token_share(tokens, tokenizer) == 0


def test_tokens_are_counted_without_truncation():
    tokenizer = train_tokenizer(HUGS, "words", 50, max_length=4)
    texts = ["hug " * 12, "体 hug", ""] * 400
    counts, unknown = count_tokens(tokenizer, texts)
    assert counts.tolist() == [14, 4, 2] * 400
    assert unknown == pytest.approx(1 / 14)
    tokenizer.pad_token = tokenizer.unk_token
    assert count_tokens(tokenizer, texts)[1] == 0
    assert count_tokens(tokenizer, [])[1] == 0
