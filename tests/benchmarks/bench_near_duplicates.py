"""Near duplicates: how many edited texts are found, what is joined in clean data, and the time.

    RECIPES_DATA=... PYTHONPATH=. python tests/benchmarks/bench_near_duplicates.py [--peers]

Reads the real data in the folder RECIPES_DATA (default ../shared/data). It prints:

1. The share of texts that are grouped with a copy in which one random word is replaced, inserted or
   left out, by the length of the text; with shingles alone, and with the comparison of short texts.
2. For whole data sets without exact duplicates: the share of texts in groups, the largest groups,
   and the pairs within a group that have less than four fifths of their words in common, in order
   (`difflib`). With --texts 20, so many of the groups that shingles alone do not find are printed.
3. The processor time for 10,000 texts of several lengths, in turns, the least of five rounds.
4. With --peers, recall and time of datasketch's and rensa's MinHash LSH, each with words and with
   runs of five characters at four thresholds (pip install datasketch==2.0.0 rensa==0.5.0).

It takes two minutes of one core, and four more with the peers.
"""

import argparse
import contextlib
import csv
import difflib
import functools
import gzip
import io
import json
import os
import re
import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from unittest import mock

import numpy as np

from shared.data import near_duplicates
from shared.data.near_duplicates import near_duplicate_groups

DATA = Path(os.environ.get("RECIPES_DATA", Path(__file__).parents[3] / "shared" / "data"))
LENGTHS = (10, 12, 15, 20, 30, 40, 50, 60, 80)
EDITS = ("replace", "insert", "leave out")
ROUNDS = 5


# --- data ----------------------------------------------------------------------------------------


def read(*paths: str) -> list[dict]:
    """Return the rows of JSONL files."""
    return [json.loads(line) for path in paths for line in gzip.open(DATA / path, "rt")]


def load() -> dict[str, list[str]]:
    """Return the texts of each data set, without exact duplicates."""
    goemotions = []
    for part in ("train", "dev", "test"):
        with gzip.open(DATA / f"goemotions/{part}.tsv.gz", "rt") as file:
            goemotions += [
                row[0] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            ]
    reviews = [row["text"].replace("<br />", " ") for row in read("imdb/train.jsonl.gz")[:4000]]
    sentences = [s for text in reviews for s in re.split(r"(?<=[.!?])\s+", text)]
    issues = read("hf-datasets-issues/issues.jsonl.gz")
    texts = {
        "AG News": [r["text"] for r in read("ag_news/train.jsonl.gz", "ag_news/test.jsonl.gz")],
        "IMDB sentences": [s for s in sentences if 8 <= len(s.split()) <= 100],
        "BANKING77": [
            r["text"]
            for r in read(*(f"banking77/{p}.jsonl.gz" for p in ("train", "valid", "test")))
        ],
        "GoEmotions": goemotions,
        "cooking.stackexchange": [r["text"] for r in read("stackexchange_tags/cooking.jsonl.gz")],
        "issues of huggingface/datasets": [f"{r['title']}\n\n{r['body'] or ''}" for r in issues],
        "their titles": [r["title"] for r in issues],
        "THUCNews": [r["text"] for r in read("thucnews/dev.jsonl.gz", "thucnews/test.jsonl.gz")],
    }
    return {name: list(dict.fromkeys(rows)) for name, rows in texts.items()}


def edit(parts, kind, new, rng, length=1):
    """Return a copy of a list of words or characters with one random edit."""
    if kind == "insert":
        place = rng.integers(len(parts) + 1)
        return [*parts[:place], *new, *parts[place:]]
    place = rng.integers(len(parts) - length + 1)
    return [*parts[:place], *(new if kind == "replace" else []), *parts[place + length :]]


def edited_pairs(texts, length, kind, rng, n=1000):
    """Return up to n texts, cut to so many words, and their edited copies."""
    random = [texts[i].split() for i in rng.permutation(len(texts))[:10_000]]
    vocabulary = [word for words in random[:1000] for word in words]
    pairs = []
    for words in [words[:length] for words in random if len(words) >= length][:n]:
        copy = words
        while copy == words:
            copy = edit(words, kind, [vocabulary[rng.integers(len(vocabulary))]], rng)
        pairs.append((" ".join(words), " ".join(copy)))
    return pairs


def edited_pairs_of_characters(texts, length, kind, rng, n=1000):
    """Return Chinese texts of so many words of 1.6 characters, and copies with an edited word.

    The edited word and the new one have one, two or three characters: 50, 42 and 8 % of words.
    """
    joined = re.sub("[^\u4e00-\u9fff]", "", "".join(texts[i] for i in rng.permutation(len(texts))))
    size = round(1.6 * length)
    pairs = []
    for i in range(n):
        characters = list(joined[i * size : (i + 1) * size])
        old, new = rng.choice([1, 2, 3], 2, p=[0.5, 0.42, 0.08])
        start = rng.integers(len(joined) - 3)
        copy = edit(characters, kind, joined[start : start + new], rng, old)
        pairs.append(("".join(characters), "".join(copy)))
    return pairs


# --- measures ------------------------------------------------------------------------------------


def shingles_alone(texts):
    """Return the groups without the comparison of short texts."""
    none = np.zeros((3, near_duplicates.MAX_TERMS + 1), np.int64)
    with mock.patch.object(near_duplicates, "_longest_edit", return_value=none):
        return near_duplicate_groups(texts)


def recall(group, pairs):
    """Return the share of pairs in one group."""
    groups = group([text for pair in pairs for text in pair])
    return np.mean(groups[::2] == groups[1::2])


def alike(first, second):
    """Return whether two texts have four fifths of their words in common, in order."""
    a, b = (re.findall(r"[\u0e00-\u0eff\u3040-\uffff]|\w+", t.lower()) for t in (first, second))
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= 0.8


def describe(texts, groups):
    """Return the share of texts in groups, the largest groups and the pairs that are not alike."""
    counts = Counter(groups.tolist())
    rows = {g: [] for g, n in counts.items() if n > 1}
    for row, g in enumerate(groups.tolist()):
        if g in rows:
            rows[g].append(row)
    pairs = [pair for members in rows.values() for pair in combinations(members, 2)]
    others = sum(not alike(texts[a], texts[b]) for a, b in pairs)
    share = sum(map(len, rows.values())) / len(texts)
    sizes = sorted(counts.values(), reverse=True)[:3]
    return f"{share:.4f} of the texts, largest {sizes}, {others} of {len(pairs)} pairs not alike"


def seconds(functions, texts):
    """Return the least processor seconds of each function, which take turns."""
    best = dict.fromkeys(functions, np.inf)
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start = time.process_time()
            function(texts)
            best[name] = min(best[name], time.process_time() - start)
    return best


# --- peers ---------------------------------------------------------------------------------------


def features(text, kind):
    """Return the set of words of a text, or of its runs of five characters."""
    words = re.findall(r"\w+", text.lower())
    if kind == "words":
        return sorted(set(words))
    joined = " ".join(words)
    return sorted({joined[i : i + 5] for i in range(max(1, len(joined) - 4))})


def components(n, pairs):
    """Return the connected components of rows 0 to n - 1."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b = np.array(pairs, np.int64).reshape(-1, 2).T
    return connected_components(coo_array((np.ones(len(a)), (a, b)), (n, n)), directed=False)[1]


def datasketch_groups(texts, kind, threshold):
    """Return groups by MinHash LSH, candidates compared by their signatures of 128 hashes."""
    from datasketch import MinHash, MinHashLSH

    sets = [[f.encode() for f in features(text, kind)] for text in texts]
    hashes = MinHash.bulk(sets, num_perm=128)
    index = MinHashLSH(threshold=threshold, num_perm=128)
    pairs = []
    for row, minhash in enumerate(hashes):
        pairs += [(o, row) for o in index.query(minhash) if hashes[o].jaccard(minhash) >= threshold]
        index.insert(row, minhash)
    return components(len(texts), pairs)


def rensa_groups(texts, kind, threshold):
    """Return groups by MinHash LSH, candidates compared by their signatures of 128 hashes."""
    from rensa import RMinHash, RMinHashLSH

    hashes = RMinHash.from_token_sets([features(text, kind) for text in texts], 128, 42)
    index = RMinHashLSH(threshold=threshold, num_perm=128, num_bands=32)
    pairs = []
    for row, minhash in enumerate(hashes):
        pairs += [(o, row) for o in index.query(minhash) if hashes[o].jaccard(minhash) >= threshold]
        index.insert(row, minhash)
    return components(len(texts), pairs)


def compare_peers(texts, rng):
    """Print recall of one-word edits of 10 to 60 words, clean texts in groups, and time."""
    pairs = [
        pair
        for length in (10, 20, 30, 40, 60)
        for kind in EDITS
        for pair in edited_pairs(texts, length, kind, rng, 100)
    ]
    methods = {"ours": near_duplicate_groups}
    for name, group in (("datasketch", datasketch_groups), ("rensa", rensa_groups)):
        for kind in ("words", "characters"):
            for threshold in (0.5, 0.6, 0.7, 0.8):
                methods[f"{name}, {kind}, {threshold}"] = functools.partial(
                    group, kind=kind, threshold=threshold
                )
    print("\nmethod: recall; clean texts of AG News in groups; seconds for 4,000 of them")
    for name, group in methods.items():
        start = time.process_time()
        groups = group(texts[:4000])
        taken = time.process_time() - start
        counts = np.bincount(groups)
        clean = np.mean(counts[groups] > 1)
        print(f"{name}: {recall(group, pairs):.3f}; {clean:.4f}; {taken:.2f}", flush=True)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--texts", type=int, default=0)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    data = load()
    methods = {"shingles": shingles_alone, "ours": near_duplicate_groups}

    print("recall of one-word edits, shingles alone / ours; up to 1,000 texts each")
    for name, texts in data.items():
        pairs_of = edited_pairs_of_characters if name == "THUCNews" else edited_pairs
        for kind in EDITS:
            cells = []
            for length in LENGTHS:
                pairs = pairs_of(texts, length, kind, rng)
                if len(pairs) >= 100:
                    both = " / ".join(f"{recall(m, pairs):.3f}" for m in methods.values())
                    cells.append(f"{length}: {both}")
            print(f"{name}, {kind}: {'; '.join(cells)}", flush=True)

    print("\ntexts in groups")
    for name, texts in data.items():
        former, groups = (method(texts) for method in methods.values())
        print(f"{name}, {len(texts):,} texts, shingles: {describe(texts, former)}")
        print(f"{name}, ours: {describe(texts, groups)}", flush=True)
        rows = {
            g: np.flatnonzero(groups == g) for g, n in Counter(groups.tolist()).items() if n > 1
        }
        new = [members for members in rows.values() if len(set(former[members])) > 1]
        for i in rng.permutation(len(new))[: args.texts]:
            print("  ---", *(repr(texts[row][:200]) for row in new[i][:5]), sep="\n    ")

    print("\nprocessor seconds for 10,000 texts, shingles alone / ours")
    reviews = [row["text"] for row in read("imdb/train.jsonl.gz")[:10_000]]
    for name, texts, length in (
        ("BANKING77", data["BANKING77"], 100),
        ("THUCNews", data["THUCNews"], 100),
        ("AG News", data["AG News"], 10),
        ("AG News", data["AG News"], 20),
        ("AG News", data["AG News"], 40),
        ("IMDB", reviews, 60),
        ("IMDB", reviews, 100),
        ("IMDB", reviews, 1000),
    ):
        cut = [" ".join(text.split()[:length]) for text in texts[:10_000]]
        shingles, ours = seconds(methods, cut).values()
        print(
            f"{name}, at most {length} words: {shingles:.3f} / {ours:.3f} ({ours / shingles:.2f}x)"
        )

    if args.peers:
        compare_peers(data["AG News"], rng)


if __name__ == "__main__":
    with contextlib.redirect_stderr(io.StringIO()):  # progress
        main()
