"""Label real texts over HTTP as fast as the page allows: how long a click takes, and who waits.

    python tests/benchmarks/bench_annotation.py --texts 50000 --clicks 2000

Starts recipes/annotate.py on the first texts of AG News (RECIPES_DATA, without labels), and sends
clicks with the right labels one after the other, and prints the delays of each quarter: until the
answer is there, which is when the click is on the disk. The estimate of the F1 runs beside them, in
the same process. At the end the program is killed (SIGKILL); the files must hold every click.
"""

import argparse
import gzip
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count, islice
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
DATA = os.environ.get("RECIPES_DATA", str(ROOT.parent / "shared" / "data"))


def main():
    """Write the texts, start the page, click, kill it, and check its files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=50_000)
    parser.add_argument("--clicks", type=int, default=2000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with gzip.open(Path(DATA, "ag_news", "train.jsonl.gz"), "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in islice(file, args.texts)]
        # Further ones are copies with a number.
        copies = islice(((i, row) for i in count() for row in rows), args.texts)
        labels = {f"{row['text']} {i or ''}".rstrip(): str(row["label"]) for i, row in copies}
        with (folder / "texts.jsonl").open("w") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in labels)
        flags = [
            "--data",
            folder / "texts.jsonl",
            "--candidate_labels",
            *sorted({*labels.values()}),
        ]
        flags += ["--multilabel", "false", "--cache_dir", folder / "cache", "--port", 0]
        flags += ["--output_dir", folder / "out"]
        command = [sys.executable, ROOT / "recipes" / "annotate.py", *flags]
        started = time.perf_counter()
        process = subprocess.Popen([str(w) for w in command], stdout=subprocess.PIPE, text=True)
        line = next(line for line in process.stdout if line.startswith("Open "))
        print(f"start: {time.perf_counter() - started:.1f} s for {len(labels):,} texts")
        port, token = re.search(r":(\d+)/\?token=(\S+)", line).groups()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)

        def ask(method, path, body=None):
            connection.request(method, path, body and json.dumps(body), headers)
            return json.load(connection.getresponse())

        item, delays = ask("GET", "/api/text")["item"], []
        for _ in range(args.clicks):
            click = {
                "action": "label",
                "id": item["id"],
                "seen": 0,
                "labels": [labels[item["text"]]],
            }
            begun = time.perf_counter()
            answer = ask("POST", "/api/clicks", click)
            delays.append(1000 * (time.perf_counter() - begun))
            item = answer["item"]
        for number, part in enumerate(np.array_split(delays, 4), 1):
            median, high = np.quantile(part, [0.5, 0.95])
            print(
                f"quarter {number}: median {median:.0f} ms, 95 % {high:.0f}, worst {max(part):.0f}"
            )
        print(f"last estimate: {answer['state']['estimate']}")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        for name in ("clicks.jsonl", "labelled.jsonl"):
            lines = (folder / "out" / name).read_text("utf-8").split("\n")[:-1]
            right = sum(
                json.loads(li)["labels"] == [labels[json.loads(li)["text"]]] for li in lines
            )
            print(f"{name}: {right:,} of {args.clicks:,} clicks")


if __name__ == "__main__":
    main()
