"""Compare a GPT of recipes/language_model.py with nanoGPT on Tiny Shakespeare, in one run.

    NANOGPT=... RECIPES_DATA=... PYTHONPATH=. python tests/benchmarks/bench_language_model.py

NANOGPT is the folder of a clone of https://github.com/karpathy/nanoGPT. Its train.py runs at its
own CPU setting (4 layers, 4 heads, 128 wide, blocks of 64, batch 12, 2,000 steps), then the recipe
with language_model_shakespeare.yaml, and once more with nanoGPT's learning rate. Each runs alone,
as the command that a person gives, in as many threads. Validation losses are means over all tokens
of the last tenth of the text, in blocks of 64 that do not overlap, of the weights that each kept.
Prints a Markdown table; it takes five to ten minutes.
"""

import gzip
import importlib.util
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RECIPES_DATA", ROOT.parent / "shared" / "data"))
BLOCK_SIZE = 64
# The command of nanoGPT's README for a computer without a GPU.
NANOGPT_FLAGS = [
    *("config/train_shakespeare_char.py", "--device=cpu", "--compile=False", "--eval_iters=20"),
    *("--log_interval=100", f"--block_size={BLOCK_SIZE}", "--batch_size=12", "--n_layer=4"),
    *("--n_head=4", "--n_embd=128", "--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0"),
]
RECIPE = ["recipes/language_model.py", "--config=recipes/configs/language_model_shakespeare.yaml"]
SAME_RATE = [
    "--learning_rate=1e-3",
    "--lr_scheduler_type=cosine_with_min_lr",
    '--lr_scheduler_kwargs={"min_lr": 1e-4}',
]


def run(arguments, folder):
    """Run a script to its end and return its seconds: by the clock, and of the processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return perf_counter() - start, processor


def prepare(text, folder):
    """Write the text as nanoGPT's data/shakespeare_char/prepare.py does; return its last tenth."""
    characters = sorted(set(text))
    number = {character: i for i, character in enumerate(characters)}
    tokens = np.array([number[character] for character in text], np.uint16)
    n_train = int(0.9 * len(tokens))
    folder.mkdir(parents=True, exist_ok=True)
    tokens[:n_train].tofile(folder / "train.bin")
    tokens[n_train:].tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(characters)}))
    return torch.from_numpy(tokens[n_train:].astype(np.int64))


@torch.no_grad()
def nanogpt_loss(folder, tokens):
    """Return the mean loss of the weights that nanoGPT kept, over all tokens but the first."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    module = sys.modules["nanogpt_model"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    [file] = folder.glob("out*/ckpt.pt")
    checkpoint = torch.load(file, weights_only=False)  # the peer's own file, written a moment ago
    model = module.GPT(module.GPTConfig(**checkpoint["model_args"])).eval()
    model.load_state_dict(checkpoint["model"])
    losses = [
        model(block[None, :-1], block[None, 1:])[1] * (len(block) - 1)
        for block in tokens.unfold(0, BLOCK_SIZE + 1, BLOCK_SIZE)
    ]
    rest = tokens[len(losses) * BLOCK_SIZE :]
    if len(rest) > 1:
        losses.append(model(rest[None, :-1], rest[None, 1:])[1] * (len(rest) - 1))
    return float(sum(losses) / (len(tokens) - 1))


def main():
    if "NANOGPT" not in os.environ:
        sys.exit("NANOGPT is not set: name the folder of a clone of karpathy/nanoGPT")
    with gzip.open(DATA / "tinyshakespeare" / "input.txt.gz", "rt", encoding="utf-8") as file:
        text = file.read()
    os.environ |= {"PYTHONPATH": str(ROOT), "RECIPES_DATA": str(DATA)}
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        peer = Path(temporary) / "nanoGPT"
        shutil.copytree(os.environ["NANOGPT"], peer, ignore=shutil.ignore_patterns(".git", "out*"))
        validation = prepare(text, peer / "data" / "shakespeare_char")
        seconds = run(["train.py", *NANOGPT_FLAGS], peer)
        rows.append(("nanoGPT", nanogpt_loss(peer, validation), *seconds))
        for name, flags in (("recipe", []), ("recipe at its learning rate", SAME_RATE)):
            output_dir = Path(temporary) / name
            seconds = run([*RECIPE, *flags, f"--output_dir={output_dir}"], ROOT)
            metrics = json.loads((output_dir / "metrics.json").read_text())
            rows.append((name, metrics["valid_nll"], *seconds))
    print("| | validation loss | seconds | of the processor | seconds, nanoGPT = 1 |")
    print("|---|---|---|---|---|")
    for name, loss, clock, processor in rows:
        ratio = clock / rows[0][2]
        print(f"| {name} | {loss:.3f} | {clock:.0f} | {processor:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
