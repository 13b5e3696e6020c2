"""Load a server of recipes/serve.py: throughput and delays, and nothing lost or mixed up.

    python tests/benchmarks/bench_server.py --model outputs/github_tagger
        [--requests N] [--clients N] [--leave SHARE] [--texts FILE]

Starts a server on 127.0.0.1 and sends requests of one text each: first one at a time, then from
many clients at once, which sometimes close their connection after a millisecond. Every answer is
compared with that of the tagger itself. Prints Markdown; exit code 1 if a request that
waited got no answer, or another one.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from shared.taggers import load_tagger

ROOT = Path(__file__).resolve().parents[2]
N_TEXTS = 300  # distinct ones


def read_texts(path):
    """Return the titles, or the texts, of the first rows of a JSON lines file."""
    rows = map(json.loads, Path(path).read_text(encoding="utf-8").split("\n")[: 3 * N_TEXTS])
    texts = [row.get("title") or row["text"] for row in rows]
    return [*dict.fromkeys(text for text in texts if text.strip())][:N_TEXTS]


async def ask(connection, text):
    """Send one text; return its record."""
    reader, writer = connection
    body = json.dumps({"texts": [text]}).encode()
    head = "POST /tag HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(re.search(r"(?i)content-length: (\d+)", answer)[1])
    (record,) = json.loads(await reader.readexactly(length))["results"]
    return record


def is_same(record, expected):
    """Whether two records agree; the texts beside one change its rounding."""
    scores, others = record["scores"], expected["scores"]
    near = all(abs(scores[name] - value) < 1e-4 for name, value in others.items())
    return near and record["labels"] == expected["labels"]


async def load(port, texts, expected, *, n_requests, n_clients, leave):
    """Send requests; return the seconds of each that waited, those of all, left and faults."""
    numbers = iter(range(n_requests))
    seconds, faults, n_left = [], [], 0

    async def client(seed):
        nonlocal n_left
        chance, connection = random.Random(seed), None
        for number in numbers:  # each client takes the next one
            connection = connection or await asyncio.open_connection("127.0.0.1", port)
            started, leaves = perf_counter(), chance.random() < leave
            try:
                asking = ask(connection, texts[number % len(texts)])
                record = await asyncio.wait_for(asking, 0.001 if leaves else 60)
                seconds.append(perf_counter() - started)
                if not is_same(record, expected[number % len(texts)]):
                    faults.append(f"another answer for text {number % len(texts)}")
            except (OSError, ValueError, KeyError, EOFError, asyncio.TimeoutError) as error:
                connection[1].close()
                connection = None
                if leaves:
                    n_left += 1
                else:
                    faults.append(repr(error))

    started = perf_counter()
    await asyncio.gather(*map(client, range(n_clients)))
    return np.array(seconds), perf_counter() - started, n_left, faults


def main():
    """Start the server, load it, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--leave", type=float, default=0.05)
    parser.add_argument("--texts", default=ROOT / "recipes" / "data" / "issues.jsonl")
    args = parser.parse_args()
    texts = read_texts(args.texts)
    expected = load_tagger(args.model).tag(texts)
    server = subprocess.Popen(
        [sys.executable, ROOT / "recipes" / "serve.py", "--model", args.model, "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    port = int(re.search(r":(\d+)$", server.stdout.readline().strip())[1])
    print("| clients | requests | left | requests/s | median | 95 % below | faults |")
    print("|---|---|---|---|---|---|---|")
    n_faults = 0
    one = {"n_requests": max(args.requests // 10, 1), "n_clients": 1, "leave": 0.0}
    many = {"n_requests": args.requests, "n_clients": args.clients, "leave": args.leave}
    for options in (one, many):
        sent = load(port, texts, expected, **options)
        seconds, total, n_left, faults = asyncio.run(sent)
        median, high = np.quantile(seconds, [0.5, 0.95]) * 1000
        print(f"| {options['n_clients']} | {options['n_requests']:,} | {n_left}", end=" | ")
        print(f"{options['n_requests'] / total:,.0f} | {median:.1f} ms | {high:.1f} ms", end=" | ")
        print(f"{len(faults)} |", flush=True)
        n_faults += len(faults)
        for fault in faults[:5]:
            print(fault, file=sys.stderr)
    server.terminate()
    server.wait()
    return int(n_faults > 0)


if __name__ == "__main__":
    sys.exit(main())
