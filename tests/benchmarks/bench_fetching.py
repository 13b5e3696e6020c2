"""Fetch the real issues of huggingface/datasets from a server on this machine.

    python tests/benchmarks/bench_fetching.py --kills 10

The server sends the 7,258 rows of $RECIPES_DATA/hf-datasets-issues, 100 on a page, as GitHub does.
Printed are seconds, memory and requests of: a fetch; an update after 50 rows have changed; an
update and a fetch without changes; and a fetch that is killed (SIGKILL) at random requests, whose
file must be the same bytes.
"""

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from github_server import REPO, github_server  # noqa: E402

from shared.data.readers import open_source  # noqa: E402

DATA = "$RECIPES_DATA/hf-datasets-issues/issues.jsonl.gz"
LATER = "2026-09-22T00:00:00Z"  # than the time of the server


def start(server, output, *flags):
    """Start the recipe as a process."""
    flags = ("--repo", REPO, "--api", server.url, "--output", str(output), *flags)
    return subprocess.Popen(
        [sys.executable, "recipes/fetch_issues.py", *flags],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "GITHUB_TOKEN": "none"},
        stdout=subprocess.PIPE,
        text=True,
    )


def measure(name, server, output, *flags):
    """Run the recipe to its end, and print what it took."""
    n_before, started = len(server.requests), time.perf_counter()
    process = start(server, output, *flags)
    printed = process.communicate()[0]
    assert process.returncode == 0
    n_free = re.search(r"requests, (\S+) of them for pages that have not changed", printed)[1]
    seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    n_requests = len(server.requests) - n_before
    size = sum(path.stat().st_size for path in output.parent.iterdir()) / 1e6
    print(
        f"{name}: {seconds:.1f} s, {n_requests} requests ({n_free} free), at most {memory:.0f} MB",
        end="",
    )
    print(f" of memory, {size:.0f} MB on disk", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10, help="kills of one fetch (default: 10)")
    args = parser.parse_args()
    rows = sorted(open_source(DATA).read(), key=lambda row: row["number"])
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder, github_server() as server:
        server.issues = json.loads(json.dumps(rows))
        output = Path(folder, "whole", "issues.jsonl.gz")
        measure("fetch", server, output)
        measure("fetch as Parquet", server, Path(folder, "parquet", "issues.parquet"))
        assert list(open_source(str(output)).read()) == rows
        measure("the same again", server, output)
        measure("update, no changes", server, output, "--update")
        changed = rng.sample(server.issues, 50)
        for row in changed:
            row |= {"updated_at": LATER, "title": "Another title"}
        measure("update, 50 changes", server, output, "--update")
        assert list(open_source(str(output)).read()) == server.issues

        stopped, n_before = Path(folder, "stopped", "issues.jsonl.gz"), len(server.requests)
        for _ in range(args.kills):
            process, n = start(server, stopped), len(server.requests)
            pages = rng.randint(1, 2 * 74 // args.kills)
            while process.poll() is None and len(server.requests) < n + pages:
                time.sleep(0.001)
            process.kill()
            process.communicate()
        process = start(server, stopped)
        process.communicate()
        assert process.returncode == 0
        n_requests = len(server.requests) - n_before
        print(f"{args.kills} kills: {n_requests} requests; ", end="")
        print("same bytes" if stopped.read_bytes() == output.read_bytes() else "OTHER BYTES")


if __name__ == "__main__":
    main()
