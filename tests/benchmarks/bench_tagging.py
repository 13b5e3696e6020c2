"""Compare the speed of tagging with the pipeline of transformers, on the test rows of taggers.

    PYTHONPATH=. python tests/benchmarks/bench_tagging.py outputs/goemotions outputs/mine \\
        [--float32 outputs/goemotions_float32 outputs/mine_float32] \\
        [--int8 outputs/goemotions_int8 outputs/mine_int8] [--texts 500] [--rounds 3]

Each folder is a fine-tuned tagger with its test_predictions.jsonl; the folders at the same place
after --float32 and --int8 are what recipes/export.py made of it. Every way of tagging has a process
of its own, which loads its model first. The processes take turns on the same texts, so that other
work on the machine slows all of them alike; the time is the sum over all turns, without the
loading.

- pipeline: text-classification with its defaults, and in batches of 32
- load_tagger: in single precision, in bfloat16 if the processor has it, and the exported folders
- server: POST /tag of recipes/serve.py, 32 texts a request, 2 at a time

Prints Markdown: texts per second, the ratio to the faster pipeline, micro F1, and the largest
difference of a score before calibration from that of the pipeline.
"""

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from urllib.request import Request, urlopen

import numpy as np

from shared.cli import has_fast_bf16, machine
from shared.evaluation import f1_scores


def pipeline_scores(folder, batch_size):
    from transformers import pipeline

    options = {} if batch_size is None else {"batch_size": batch_size}
    classify = pipeline(
        *("text-classification", folder),
        **options,
        top_k=None,
        device="cpu",
        trust_remote_code=True,
    )

    def score(texts):
        rows = classify(texts, truncation=True)
        return [{item["label"]: item["score"] for item in row} for row in rows]

    return score


def tagger_scores(folder, bf16):
    from shared.taggers import load_tagger

    tagger = load_tagger(folder, bf16=bf16)

    def score(texts):
        raw_scores = tagger.raw_scores(texts)
        return [dict(zip(tagger.label_names, row, strict=True)) for row in raw_scores.tolist()]

    return score


def served_tags(folder, bf16):
    """Return a function that asks a server of this process, through its socket."""
    import threading

    import uvicorn

    from shared.serving import BatchedTagger, Limits, bind, make_app
    from shared.taggers import load_tagger

    listening = bind("127.0.0.1", 0)
    app = make_app(BatchedTagger(load_tagger(folder, bf16=bf16)), folder, Limits())
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}/tag"
    headers = {"Content-Type": "application/json"}

    def ask(texts):
        request = Request(address, json.dumps({"texts": texts}).encode(), headers)
        with urlopen(request, timeout=600) as answer:
            return [record["labels"] for record in json.load(answer)["results"]]

    def tag(texts):
        parts = [texts[start : start + 32] for start in range(0, len(texts), 32)]
        with ThreadPoolExecutor(2) as threads:
            return [labels for part in threads.map(ask, parts) for labels in part]

    return tag


PRECISIONS = "float32", "int8"  # of exported taggers
WAYS = {"pipeline": pipeline_scores, "tagger": tagger_scores, "server": served_tags}


def work(connection, way, folder, option):
    """Load one way of tagging; then answer lists of texts with results and seconds."""
    call = WAYS[way](folder, option)
    call(["The first call of a model is the slowest."])
    connection.send("ready")
    while (texts := connection.recv()) is not None:
        started = perf_counter()
        results = call(texts)
        connection.send((results, perf_counter() - started))


def compare(folder, exports, n_texts, rounds):
    lines = (Path(folder) / "test_predictions.jsonl").read_text("utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    rng = np.random.default_rng(0)
    rows = [rows[i] for i in rng.permutation(len(rows))[:n_texts]]
    ways = {
        "pipeline, defaults": ("pipeline", folder, None),
        "pipeline, batches of 32": ("pipeline", folder, 32),
        "tagger, float32": ("tagger", folder, False),
    }
    if has_fast_bf16(on_cpu=True):
        ways["tagger, bfloat16"] = ("tagger", folder, True)
        ways["server, bfloat16"] = ("server", folder, True)
    for precision, export in exports.items():
        ways[f"tagger, exported, {precision}"] = ("tagger", export, False)
        ways[f"server, exported, {precision}"] = ("server", export, False)
    workers = {}
    for name, way in ways.items():  # one after the other: loading is not measured
        here, there = multiprocessing.Pipe()
        process = multiprocessing.Process(target=work, args=(there, *way), daemon=True)
        process.start()
        if here.recv() != "ready":
            sys.exit(f"{name}: did not start")
        workers[name] = here
    results, seconds = {name: [] for name in ways}, dict.fromkeys(ways, 0.0)
    for part in np.array_split(np.arange(len(rows)), rounds):
        for name, connection in workers.items():
            connection.send([rows[i]["text"] for i in part])
            part_results, part_seconds = connection.recv()
            results[name] += part_results
            seconds[name] += part_seconds
    for connection in workers.values():
        connection.send(None)

    from shared.taggers import load_tagger

    tagger = load_tagger(folder)
    names = tagger.label_names
    y = np.array([[name in row["true_labels"] for name in names] for row in rows])
    base = min(seconds["pipeline, defaults"], seconds["pipeline, batches of 32"])
    words = np.median([len(row["text"].split()) for row in rows])
    print(f"\n## {Path(folder).name}: {len(rows):,} texts, median {words:.0f} words\n")
    print("| way | texts per second | ratio | micro F1 | macro F1 | difference of a score |")
    print("|---|---|---|---|---|---|")
    of_pipeline = None
    for name, answers in results.items():
        difference = ""
        if isinstance(answers[0], dict):
            scores = np.array([[answer[label] for label in names] for answer in answers])
            of_pipeline = scores if of_pipeline is None else of_pipeline
            difference = f"{np.abs(scores - of_pipeline).max():.1e}"
            predicted = tagger.choose(scores)
        else:
            predicted = np.array([[label in answer for label in names] for answer in answers])
        f1 = f1_scores(y, predicted)
        speed, ratio = len(rows) / seconds[name], base / seconds[name]
        print(
            f"| {name} | {speed:.1f} | {ratio:.2f}x | {f1['micro_f1']:.3f} | {f1['macro_f1']:.3f} "
            f"| {difference} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description="Speed of tagging beside the pipeline")
    parser.add_argument("folders", nargs="+", help="fine-tuned taggers")
    for precision in PRECISIONS:
        parser.add_argument(f"--{precision}", nargs="*", default=[], help="exports, in this order")
    parser.add_argument("--texts", type=int, default=500, help="test rows of each (default: 500)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way (default: 3)")
    args = parser.parse_args()
    multiprocessing.set_start_method("spawn")
    print(machine())
    for number, folder in enumerate(args.folders):
        exports = {
            precision: folders[number]
            for precision in PRECISIONS
            if number < len(folders := getattr(args, precision))
        }
        compare(folder, exports, args.texts, args.rounds)


if __name__ == "__main__":
    main()
