"""Compare the FAISS indexes of the lookup at 200,000 vectors: recall, building, searching.

    PYTHONPATH=. python tests/benchmarks/bench_indexes.py [--rows N] [--queries N] [--threads N]

The vectors are those of IMDB sentences, by the default encoder: rows from the training file,
queries from the test file. Recall is the share of the ten nearest rows of the exact search, "flat",
that an index returns. Embedding takes about five minutes per 100,000 sentences on one core; the
vectors are kept in the temporary folder for the next run. Prints Markdown.
"""

import argparse
import gzip
import json
import os
import re
import tempfile
from itertools import islice
from pathlib import Path
from time import perf_counter

import faiss
import numpy as np
import torch
from tqdm import tqdm

from shared.methods import MeanPooling, NearestNeighbours
from shared.methods.embeddings import normalized
from shared.models import DEFAULT_MODEL, load_encoder, load_tokenizer, resolve_model

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RECIPES_DATA", ROOT.parent / "shared" / "data"))
K = 10


def sentences(name):
    """Yield the distinct sentences of 20 to 200 characters of a file of reviews, shuffled."""
    with gzip.open(DATA / "imdb" / name, "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"].replace("<br />", " ") for line in file]
    parts = (part.strip() for text in texts for part in re.split(r"(?<=[.!?])\s+", text))
    distinct = [part for part in dict.fromkeys(parts) if 20 <= len(part) <= 200]
    yield from np.random.default_rng(0).permutation(np.array(distinct, dtype=object))


def embed(name, n):
    """Return the vectors of the first n sentences of a file: float32, (n, width)."""
    path = Path(tempfile.gettempdir()) / f"bench_indexes_{name}_{n}.npy"
    if not path.exists():
        folder = resolve_model(DEFAULT_MODEL)
        tokenizer = load_tokenizer(folder)
        model = MeanPooling(load_encoder(folder, tokenizer=tokenizer)).eval()
        texts = list(islice(sentences(name), n))
        by_length = sorted(range(n), key=lambda i: len(texts[i]))  # hardly any padding
        vectors = np.empty((n, model.encoder.config.hidden_size), np.float32)
        for start in tqdm(range(0, n, 256), "embedding"):
            rows = by_length[start : start + 256]
            batch = tokenizer([texts[i] for i in rows], padding=True, return_tensors="pt")
            with torch.no_grad():
                inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
                vectors[rows] = model(**inputs)["logits"].numpy()
        np.save(path, normalized(vectors))
    return np.load(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    x, queries = embed("train.jsonl.gz", args.rows), embed("test.jsonl.gz", args.queries)
    faiss.omp_set_num_threads(args.threads)
    labels, exact, seconds = np.zeros((len(x), 1)), None, None
    print("| index | recall of the ten nearest | build | search, per text | speed |")
    print("| --- | --- | --- | --- | --- |")
    for index_type in ("flat", "ivf", "hnsw"):
        start = perf_counter()
        lookup = NearestNeighbours(x, labels, index_type)
        built = perf_counter()
        # In batches of 32, as texts arrive from an encoder.
        batches = [lookup.search(queries[i : i + 32], K) for i in range(0, len(queries), 32)]
        took = (perf_counter() - built) / len(queries)
        rows = np.concatenate(batches)
        exact, seconds = (rows, took) if exact is None else (exact, seconds)
        hits = [np.isin(a, b).mean() for a, b in zip(exact, rows, strict=True)]
        print(
            f"| {index_type} | {np.mean(hits):.3f} | {built - start:.1f} s | {took * 1e3:.2f} ms | "
            f"{seconds / took:.0f}x |",
            flush=True,
        )
