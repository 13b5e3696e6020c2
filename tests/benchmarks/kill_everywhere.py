"""Kill every recipe at every file operation, run it again, and compare what it leaves.

    python tests/benchmarks/kill_everywhere.py                       # everything: hours
    python tests/benchmarks/kill_everywhere.py lora tag --every 10   # a tenth of the kills of two

Exit code 1 if a run does not end as one that nobody killed. `tests/kills.py` says how it works.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

# Before the libraries are imported; a fork must not inherit the threads of its parent.
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from conftest import (  # noqa: E402
    FILLER,
    KEYWORDS,
    TINY_PROMPTS,
    save_tiny_mlm,
    save_tiny_model,
    save_tiny_nli,
    write_tiny_issues,
)
from kills import Case, prepare_process, report  # noqa: E402
from tiny_models import save_tiny_model as save_tiny_architecture  # noqa: E402

DATA = "--data {inputs}/issues.jsonl --cache_dir {run}/cache"
OUT = f"{DATA} --output_dir {{run}}/out"
CPU = "--use_cpu --bf16 false"
MODEL = "--model {inputs}/model --max_length 32"
SHORT = "--num_train_epochs 2 --per_device_train_batch_size 24 --learning_rate 2e-3"
RESUME = "--resume_from_checkpoint true"
SCRATCH = "--embedding_size 8 --hidden_size 8"

CASES = {
    "github_tagger": Case(
        "recipes/github_tagger.py", f"{OUT} {MODEL} {CPU} {SHORT} --refit true", RESUME
    ),
    "github_tagger_steps": Case(
        "recipes/github_tagger.py",
        f"{OUT} {MODEL} {CPU} {SHORT} --save_strategy steps --save_steps 2 --eval_strategy steps "
        "--eval_steps 2 --logging_strategy steps --logging_steps 3 --save_total_limit 2",
        RESUME,
    ),
    "goemotions": Case(
        "recipes/goemotions.py",
        f"{OUT} {MODEL} {CPU} {SHORT} --num_train_epochs 9 --patience 1",
        RESUME,
    ),
    "document_classification": Case(
        "recipes/document_classification.py",
        f"{OUT} --model {{inputs}}/model {CPU} {SHORT} --window 32 --stride 8 --folds 2",
        RESUME,
    ),
    "augmentation": Case(
        "recipes/augmentation.py",
        f"{OUT} {MODEL} {CPU} {SHORT} --augmentations swap --compare true",
        RESUME,
    ),
    "uda": Case("recipes/uda.py", f"{OUT} {MODEL} {CPU} {SHORT}", RESUME),
    "self_training": Case(
        "recipes/self_training.py",
        f"{OUT} {MODEL} {CPU} {SHORT} --uncertainty none --rounds 2",
        RESUME,
    ),
    "pet": Case(
        "recipes/pet.py",
        f"{OUT} {MODEL} {CPU} {SHORT} --masked_model {{inputs}}/mlm --loss adapet "
        "--prompts {inputs}/prompts.yaml",
        RESUME,
    ),
    "imdb_cnn_rnn": Case(
        "recipes/imdb_cnn_rnn.py",
        f"{OUT} {CPU} {SCRATCH} --max_steps 6 --eval_steps 3 --save_steps 3 --logging_steps 2",
        RESUME,
    ),
    "domain_adaptation": Case(
        "recipes/domain_adaptation.py",
        f"--data {{inputs}}/unlabelled.jsonl --cache_dir {{run}}/cache --output_dir {{run}}/out "
        f"{MODEL} {CPU} {SHORT} --held_out_share 0.2",
        RESUME,
    ),
    "gan": Case(
        "recipes/gan.py",
        f"--output_dir {{run}}/out {CPU} --base_width 4 --features pixels --n_samples 99 "
        "--max_steps 6 --eval_strategy steps --eval_steps 3 --logging_strategy steps "
        "--logging_steps 2",
        RESUME,
    ),
    "images": Case(
        "recipes/images.py",
        f"--output_dir {{run}}/out {CPU} --width 4 --num_levels 3 --max_steps 6 --eval_strategy "
        "steps --eval_steps 3 --logging_strategy steps --logging_steps 2",
        RESUME,
    ),
    "language_model": Case(
        "recipes/language_model.py",
        f"--data {{inputs}}/unlabelled.jsonl --cache_dir {{run}}/cache --output_dir {{run}}/out "
        f"{CPU} --architecture gru --hidden_size 16 --max_steps 6 --eval_strategy steps "
        "--eval_steps 3 --logging_strategy steps --logging_steps 2 --samples 2 --sample_length 9",
        RESUME,
    ),
    "multi_task": Case(
        "recipes/multi_task.py",
        f"{OUT} {MODEL} {CPU} {SHORT} --tasks labels",
        RESUME,
    ),
    "span_qa": Case(
        "recipes/span_qa.py",
        f"--data {{inputs}}/questions.jsonl --output_dir {{run}}/out {MODEL} {CPU} {SHORT} "
        "--stride 4",
        RESUME,
    ),
    "seq2seq": Case(
        "recipes/seq2seq.py",
        f"--data {{inputs}}/pairs.jsonl --source_column premise --target_column hypothesis "
        f"--output_dir {{run}}/out {CPU} --hidden_size 16 --max_steps 6 --eval_strategy steps "
        "--eval_steps 3 --save_strategy steps --save_steps 3 --max_target_length 8 --num_beams 2",
        RESUME,
    ),
    "series": Case(
        "recipes/series.py",
        f"--columns load --input_size 24 --output_dir {{run}}/out {CPU} --architecture gru "
        "--hidden_size 8 --max_steps 6 --eval_strategy steps --eval_steps 3 --save_strategy steps "
        "--save_steps 3 --logging_strategy steps --logging_steps 2",
        RESUME,
    ),
    "tabular": Case(
        "recipes/tabular.py",
        f"--output_dir {{run}}/out {CPU} --folds 2 --members 2 --hidden_size 16 "
        "--num_train_epochs 3 --baselines false",
        RESUME,
    ),
    "techniques": Case(
        "recipes/techniques.py",
        f"{OUT} {CPU} --vocab_size 300 --hidden_size 16 --max_steps 3 --num_seeds 1 "
        "--techniques clipping",
    ),
    "train_nli": Case(
        "recipes/train_nli.py",
        "--train_data {inputs}/pairs.jsonl --test_data {inputs}/test_pairs.jsonl "
        "--output_dir {run}/out "
        f"{MODEL} {CPU} {SHORT}",
        RESUME,
    ),
    "lora": Case(
        "recipes/lora.py",
        f"{OUT} {MODEL} {CPU} {SHORT} --methods head lora prompt --rank 2 --prompt_tokens 3",
    ),
    "few_label_probe": Case("recipes/few_label_probe.py", f"{OUT} {MODEL} {CPU}"),
    "co_training": Case("recipes/co_training.py", f"{OUT} {MODEL} {CPU}"),
    "embedding_lookup": Case("recipes/embedding_lookup.py", f"{OUT} {MODEL} {CPU}"),
    "explore": Case("recipes/explore.py", f"{OUT} {MODEL} {CPU} --max_map 20"),
    "zero_shot": Case(
        "recipes/zero_shot.py", f"{OUT} --model {{inputs}}/nli {CPU} --max_length 32"
    ),
    "prompts": Case(
        "recipes/prompts.py",
        f"{OUT} --model {{inputs}}/causal --embedding_model {{inputs}}/model --max_length 24 {CPU} "
        "--method few_shot --choose nearest --demonstrations 2 --train_size 24 --test_size 0.2",
    ),
    "label_next": Case(
        "recipes/label_next.py",
        f"--data {{inputs}}/unlabelled.jsonl --cache_dir {{run}}/cache --output_dir {{run}}/out "
        f"--encoder {{inputs}}/model --max_length 32 --batch 10 {CPU}",
    ),
    "agreement": Case(
        "recipes/agreement.py",
        "--data {inputs}/answers.jsonl --cache_dir {run}/cache --output_dir {run}/out",
    ),
    "naive_bayes": Case("recipes/naive_bayes.py", OUT),
    "train_tokenizer": Case(
        "recipes/train_tokenizer.py", f"{OUT} {MODEL} --vocab_size 90 --held_out_share 0.25"
    ),
    "best": Case(
        "recipes/best.py",
        f"{OUT} {MODEL} --folds 2 --candidates naive_bayes fine_tuning",
    ),
    "few_label_benchmark": Case(
        "recipes/few_label_benchmark.py",
        f"{OUT} --methods naive_bayes tfidf --sizes 8 --seeds 1 --jobs 1",
    ),
    "tag": Case(
        "recipes/tag.py",
        f"--model {{inputs}}/tagger --data {{inputs}}/issues.jsonl --output {{run}}/tagged.csv "
        f"--block_size 50 {CPU} --output_dir {{run}}/trainer",
    ),
}


def make_inputs(folder):
    """Write the files and the models that the recipes read."""
    import json

    from kills import fork, run_script, wait

    issues = write_tiny_issues(folder / "issues.jsonl")
    save_tiny_model(folder / "model")
    save_tiny_nli(folder / "model", folder / "nli")
    save_tiny_mlm(folder / "model", folder / "mlm")
    words = [*FILLER.split(), *" ".join([*KEYWORDS, *KEYWORDS.values()]).split()]
    words += ["this", "text", "is", "about"]
    sizes = {"max_position_embeddings": 512}
    save_tiny_architecture(folder / "causal", "llama", words, "AutoModelForCausalLM", **sizes)
    (folder / "prompts.yaml").write_text(TINY_PROMPTS, "utf-8")
    rows = [json.loads(line) for line in issues.read_text("utf-8").splitlines()]
    answers = [
        {"text": row["title"], "labels": row["labels"][:1], "annotator": who}
        for i, row in enumerate(rows[:60])
        for who in ("anna", "ben", "carla")[: 2 + i % 2]
    ]
    lines = [json.dumps(answer) + "\n" for answer in answers]
    (folder / "answers.jsonl").write_text("".join(lines), "utf-8")
    for row in rows[30:]:
        row["labels"] = []
    lines = [json.dumps(row) + "\n" for row in rows]
    (folder / "unlabelled.jsonl").write_text("".join(lines), "utf-8")
    questions = [
        {"context": row["body"], "question": "which", "answer": row["body"].split()[i % 5]}
        for i, row in enumerate(rows)
    ]
    lines = [json.dumps(question) + "\n" for question in questions]
    (folder / "questions.jsonl").write_text("".join(lines), "utf-8")
    names = ("entailment", "neutral", "contradiction")
    pairs = [
        {"premise": row["body"][:60], "hypothesis": row["title"], "label": names[i % 3]}
        for i, row in enumerate(rows)
    ]
    lines = [json.dumps(pair) + "\n" for pair in pairs]
    (folder / "pairs.jsonl").write_text("".join(lines[:72]), "utf-8")
    (folder / "test_pairs.jsonl").write_text("".join(lines[72:]), "utf-8")
    flags = f"--data {issues} --cache_dir {folder}/cache --output_dir {folder}/tagger".split()
    call = fork(lambda: run_script("recipes/naive_bayes.py", flags), folder / "log.txt")
    assert wait(call) == 0, (folder / "log.txt").read_text()


def main():
    """Check the named recipes; exit with 1 if one of their kills ends otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help=f"any of {', '.join(CASES)} (default: all)")
    parser.add_argument("--every", type=int, default=1, help="check every n-th state (default: 1)")
    parser.add_argument("--first", type=int, default=0, help="the first state (default: 0)")
    parser.add_argument("--only", default="", help="states whose name contains this text")
    args = parser.parse_args()
    prepare_process()
    n_failed = 0
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "inputs")
        inputs.mkdir()
        make_inputs(inputs)
        for name in args.recipes or CASES:
            started = time.perf_counter()
            options = {"first": args.first, "every": args.every, "only": args.only}
            results = CASES[name].check(Path(folder, name), inputs, **options)
            n_failed += report(name, results, started)
    sys.exit(n_failed > 0)


if __name__ == "__main__":
    main()
