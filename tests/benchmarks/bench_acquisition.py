"""Labels that strategies of active learning save, beside those of small-text and scikit-activeml.

    python tests/benchmarks/bench_acquisition.py
    python tests/benchmarks/bench_acquisition.py --tasks issues --seeds 1 2

Each strategy labels texts from no label on, in batches of 20. The model after each batch is the
same for all: that of recipes/label_next.py. The data are those of RECIPES_DATA (default:
../shared/data): GitHub issues and GoEmotions (several labels per text), BANKING77 (one). A seed is
a split, or a part of the texts to choose from; see `split_for_simulation`.

The peers are optional and not among the dependencies of the project:

    pip install --no-deps small-text==1.4.1 scikit-activeml==1.0.1 makefun iteration-utilities

They get the same embeddings and scores. Where they compare all texts with each other, they choose
from 3,000 texts, drawn for each batch. MaxHerding also runs with the width of the kernel of
`coverage`, which its default is far from. --peers takes words of their names. --speed measures the
seconds of a batch from 50,000 random vectors.
"""

import argparse
import os
import sys
import warnings
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from recipes.label_next import POOL_SHARE, LabelNextArguments, load_embedder
from shared.cli import parse_arguments, progress_bar, quiet_libraries
from shared.data import load_corpus, split_for_simulation
from shared.methods import (
    STRATEGIES,
    Batch,
    Pool,
    choose_batch,
    simulate,
    simulation_tasks,
)
from shared.reports import simulation_table

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("RECIPES_DATA", ROOT.parent / "shared" / "data"))
CONFIGS = ROOT / "recipes" / "configs"
TASKS = {
    "issues": [f"--config={CONFIGS / 'label_next_issues.yaml'}"],
    "goemotions": [f"--config={CONFIGS / 'label_next_goemotions.yaml'}"],
    "banking77": [
        f"--data={DATA / 'banking77' / 'train.jsonl.gz'}",
        f"--test_data={DATA / 'banking77' / 'test.jsonl.gz'}",
        *("--max_length=48", "--simulate=true", "--labels=400"),
    ],
}
PEER_TEXTS = 3000


# --- peers: functions with the arguments of `BatchProbe.choose` -----------------------------------


def small_text_strategies(embeddings, single_label):
    """Return the strategies of small-text that fit the task."""
    from small_text.query_strategies import coresets, multi_label, strategies

    def k_means(labelled, labels, candidates, size, *, scores, seed):
        np.random.seed(seed)  # its k-means has no seed of its own
        strategy = strategies.EmbeddingKMeans()
        chosen = strategy.sample(None, None, candidates, labelled, None, size, embeddings)
        return Batch(rows=candidates[chosen].tolist())

    def coreset(labelled, labels, candidates, size, *, scores, seed):
        if not len(labelled):  # it needs one
            labelled = candidates[:1]
        # It reads what it chose as rows of all vectors, so that these must be the candidates.
        x = np.concatenate([embeddings[candidates], embeddings[labelled]])
        old = len(candidates) + np.arange(len(labelled))
        options = {"distance_metric": "euclidean", "normalized": True}
        chosen = coresets.greedy_coreset(x, np.arange(len(candidates)), old, size, **options)
        return Batch(rows=candidates[chosen].tolist())

    def breaking_ties(labelled, labels, candidates, size, *, scores, seed):
        best = np.sort(scores[candidates], axis=1)
        margin = best[:, -1] - best[:, -2]
        return Batch(rows=candidates[np.argsort(margin, kind="stable")[:size]].tolist())

    def cvirs(labelled, labels, candidates, size, *, scores, seed):
        from scipy.sparse import csr_matrix

        if not len(labelled):  # it compares texts with labelled ones
            return random(labelled, labels, candidates, size, scores=scores, seed=seed)
        strategy = multi_label.CategoryVectorInconsistencyAndRanking(pbar=None)
        values = strategy._compute_scores(candidates, csr_matrix(labels), scores[candidates])
        return Batch(rows=candidates[np.argsort(-values, kind="stable")[:size]].tolist())

    doubtful = {"small-text BreakingTies": breaking_ties} if single_label else {}
    doubtful |= {} if single_label else {"small-text CVIRS": cvirs}
    return {
        **{"small-text EmbeddingKMeans": k_means, "small-text GreedyCoreset": coreset},
        **doubtful,
    }


def scikit_activeml_strategies(embeddings):
    """Return the strategies of scikit-activeml that need no classifier, and so fit every task."""
    from skactiveml.pool import MaxHerding, ProbCover, TypiClust

    def strategy(make, labelled, labels, candidates, size, *, scores, seed):
        rng = np.random.default_rng(seed)
        if len(candidates) > PEER_TEXTS:
            candidates = rng.choice(candidates, PEER_TEXTS, replace=False)
        rows = np.concatenate([labelled, candidates])
        y = np.full(len(rows), np.nan)
        y[: len(labelled)] = 0  # only whether a text has labels is read
        chosen = make(random_state=seed).query(embeddings[rows], y, batch_size=size)
        return Batch(rows=rows[chosen].tolist())

    kernel = {"metric_dict": {"gamma": 1.5}}
    return {
        "scikit-activeml TypiClust": partial(strategy, TypiClust),
        "scikit-activeml ProbCover": partial(strategy, partial(ProbCover, n_classes=28)),
        "scikit-activeml MaxHerding": partial(strategy, MaxHerding),
        "scikit-activeml MaxHerding gamma=1.5": partial(strategy, partial(MaxHerding, **kernel)),
    }


def random(labelled, labels, candidates, size, *, scores, seed):
    drawn = np.random.default_rng(seed).choice(candidates, size, replace=False)
    return Batch(rows=drawn.tolist())


# --- the comparison ------------------------------------------------------------------------------


def compare(name, args):
    """Print the tables of a task."""
    flags = [*TASKS[name], f"--seeds={args.seeds[0]}", f"--cache_dir={args.cache_dir}"]
    recipe_args = parse_arguments(
        LabelNextArguments, [flag for flag in flags if "None" not in flag]
    )
    recipe_args.seeds = args.seeds
    corpus, held_out = load_corpus(recipe_args)
    splits, pools = split_for_simulation(corpus, held_out, recipe_args, share=POOL_SHARE)
    embed = load_embedder(recipe_args, corpus.dataset["text"])
    sizes = range(recipe_args.batch, recipe_args.labels + 1, recipe_args.batch)
    simulations, seconds = {}, {}
    with progress_bar(name, None, unit="batches") as bar:
        for seed, task in simulation_tasks(corpus, splits, pools, embed, recipe_args):
            probe = task.probe
            methods = {
                strategy: partial(probe.choose, strategy)
                for strategy in dict.fromkeys(["random", *args.strategies])
            }
            if args.peers:
                peers = small_text_strategies(probe.embeddings, probe.single_label)
                peers |= scikit_activeml_strategies(probe.embeddings)
                methods |= {
                    peer: peers[peer] for peer in peers if set(args.peers) & {*peer.split()}
                }
            for method, choose in methods.items():
                started = perf_counter()
                options = {"sizes": sizes, "seed": seed, "on_round": bar.update}
                rounds = simulate(task, choose, **options)
                simulations.setdefault(method, {})[seed] = rounds
                seconds[method] = seconds.get(method, 0) + perf_counter() - started
            print(f"\n## {name}, seeds up to {seed}\n", flush=True)
            for metric in ("macro_f1", "micro_f1"):
                print(f"{metric}\n\n{simulation_table(simulations, metric)}\n", flush=True)
    print("seconds:", {method: round(value) for method, value in seconds.items()}, flush=True)


def measure_speed():
    """Print the seconds of a batch of 20 from 50,000 random vectors, 28 labels, 200 labelled."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50_000, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = rng.random((50_000, 28))
    labels = (rng.random((200, 28)) < 0.05).astype(np.uint8)
    candidates = np.arange(200, 50_000)
    committee = rng.random((len(candidates), 8, 28))
    pool = Pool(vectors, np.arange(200), labels, candidates, scores, committee)
    print("\n| strategy | seconds |\n|---|---|")
    for strategy in STRATEGIES:
        started = perf_counter()
        choose_batch(pool, strategy, 20)
        print(f"| {strategy} | {perf_counter() - started:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--strategies", nargs="+", default=[*STRATEGIES])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--peers", nargs="*", default=["small-text", "scikit-activeml"])
    parser.add_argument("--cache_dir")
    parser.add_argument("--speed", action="store_true")
    args = parser.parse_args()
    if args.speed:
        return measure_speed()
    os.environ.setdefault("RECIPES_DATA", str(DATA))
    quiet_libraries()
    warnings.simplefilter("ignore")
    for name in args.tasks:
        compare(name, args)


if __name__ == "__main__":
    sys.exit(main())
