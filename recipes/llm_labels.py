"""Label texts by a large language model, and check its labels on those of a person.

Why: thousands of texts have no labels, a few dozen have, and a language model can read the
definitions of the labels. It costs money and time for each text; a tagger that learns from its
labels costs them once. Two back ends:

--endpoint URL  A server with the chat completions of OpenAI, local (llama.cpp, vLLM, Ollama) or
                hosted. Answers are JSON under a schema where the server has it; others are checked,
                and asked again.
(no endpoint)   A causal language model that runs here: the default is SmolLM2-135M-Instruct, from
                the package index. It chooses among the labels alone, with probabilities.

    accelerate launch recipes/llm_labels.py --data issues.jsonl --descriptions labels.yaml \\
        --endpoint http://127.0.0.1:8000/v1 --model NAME --samples 5
    accelerate launch recipes/llm_labels.py --data issues.jsonl --model Qwen/Qwen3-0.6B \\
        --demonstrations 4
    accelerate launch recipes/llm_labels.py --config recipes/configs/llm_labels_sample.yaml

Data: as described in README.md. The unlabelled texts get labels. So do --check_rows of the labelled
ones, but the examples in the prompt: how far the model agrees with them says how far to trust the
rest. What matters most is what --descriptions, or a --template of your own, say about the labels.

Output: labelled.jsonl has the texts of all rows with `labels`, which every recipe reads; `source`
("given" or "llm"), `confidence` (null for given labels), `scores`, and `flag`, why a person should
look at the row. to_review.csv lists the flagged rows, the most doubtful first. README.md has the
agreement (accuracy, F1, Cohen's kappa by label) and the cost. --train then distils the labels into
a tagger (recipes/self_training.py), weighted by their confidence.

Every answer is kept in the cache: a run that was stopped goes on when the same command is repeated,
and no text costs twice. The key is read from an environment variable; it is in no file and no
message. A run ends before --budget_requests, --budget_tokens or --budget_money is passed, with exit
code 0: the texts that it has not asked stay unlabelled, and the same command asks for them.

Expect of the default model on a CPU core: on AG News (4 labels) several texts per second, accuracy
.59; on the sample, whose 9 labels are asked one by one, a text per second, and labels no better
than chance. It shows that everything works; take a larger one to work with.
"""

import asyncio
import hashlib
import shlex
from dataclasses import asdict, dataclass
from datetime import date

import numpy as np

from shared.cli import (
    Job,
    UserError,
    atomic_write,
    exit_on_user_error,
    flag,
    folder_fingerprint,
    is_main_process,
    parse_arguments,
    progress_bar,
    read_key,
    run_jobs,
    start_recipe,
    write_json,
)
from shared.data import DataArguments, cache_folder, load_corpus
from shared.evaluation import agreement, agreement_table, sigmoid, softmax
from shared.llm import (
    AnswerCache,
    AnswerFormat,
    Endpoint,
    EndpointArguments,
    Labelling,
    Prompt,
    ask_for_labels,
    batch_calibrated,
    draw_examples,
    load_causal_scorer,
    read_template,
)
from shared.methods import label_phrases
from shared.models import DEFAULT_LANGUAGE_MODEL
from shared.reports import LABEL_COLUMNS, LlmLabels, command_line

TRAINING_RECIPE = "recipes/self_training.py"
ONE_NAME = "Answer with the name of the label that fits best, and nothing else."
FEWEST_TO_CALIBRATE = 20  # texts; the mean of fewer says more of them than of the model
QUESTION = "Does the label {!r} ({}) fit the text? Answer yes or no."


@dataclass
class LlmLabelsArguments(EndpointArguments, DataArguments):
    """The flags of this recipe."""

    model: str | None = flag(
        None,
        "Name of the model at --endpoint; without one, a hub id or a folder (default: "
        f"{DEFAULT_LANGUAGE_MODEL}).",
    )
    candidate_labels: list[str] | None = flag(None, "Labels (default: those of the data).")
    multilabel: bool | None = flag(
        None,
        "A text has any number of labels, also none; false: exactly one (default: as the labelled "
        "rows; without any, false).",
    )
    descriptions: str | None = flag(
        None,
        "What matters most: YAML file that maps a label to one or more phrases that say what it "
        "means (default: none).",
    )
    template: str | None = flag(
        None,
        "Text file with the prompt: {text}, and {labels} and {examples} where they are wanted "
        "(default: a short one, see shared/llm/prompts.py).",
    )
    demonstrations: int = flag(
        0, "Labelled texts to show as examples, of all labels in turn (default: 0).", least=0
    )
    max_characters: int = flag(
        4000, "Characters of a text in the prompt; longer ones are cut (default: 4000).", least=1
    )
    check_rows: int = flag(
        200, "Labelled rows to measure the agreement on; 0: none (default: 200).", least=0
    )
    max_texts: int | None = flag(
        None, "Most unlabelled texts to label, a random choice (default: all).", least=0
    )
    review_below: float = flag(
        0.7, "Flag rows whose confidence is below (default: 0.7).", least=0, most=1
    )
    calibrate: bool = flag(
        True,
        "Without --endpoint, with one label per text: divide the probabilities of each label by "
        "their mean over the texts, since small models prefer some labels whatever the text; from "
        "20 texts on (default: true).",
    )
    bf16: bool | None = flag(
        None,
        "Without --endpoint: compute in bfloat16 (default: if the hardware supports it).",
    )
    batch_size: int = flag(
        8, "Without --endpoint: texts that are read at once (default: 8).", least=1
    )
    train: bool = flag(
        False, f"Train a tagger on the labels, by {TRAINING_RECIPE} (default: false)."
    )
    train_flags: str = flag(
        "", "Further flags of that recipe: --train_flags='--num_train_epochs 3' (default: none)."
    )
    seed: int = flag(42, "Random seed of the rows that are drawn (default: 42).")
    output_dir: str = flag("outputs/llm_labels", "Output folder (default: outputs/llm_labels).")

    def __post_init__(self):
        super().__post_init__()
        if self.endpoint is not None and self.model is None:
            raise UserError("--endpoint: name a --model that it serves")
        self.model = self.model or DEFAULT_LANGUAGE_MODEL
        self.candidate_labels = list(dict.fromkeys(self.candidate_labels or [])) or None
        if taken := [name for name in self.text_columns if name in LABEL_COLUMNS]:
            raise UserError(f"--text_columns {taken[0]}: the output has this column; rename it")
        if self.train_flags and not self.train:
            raise UserError("--train_flags: acts with --train; add it")


def main() -> None:
    """Load, draw examples and rows to check, ask, measure the agreement, write, train."""
    args = parse_arguments(LlmLabelsArguments, description=__doc__)
    if not is_main_process():
        return  # requests run side by side in one process
    output_dir = start_recipe(args)
    template, key = read_template(args.template), read_key(args.api_key_variable)
    corpus, _ = load_corpus(args, label_names=args.candidate_labels, labels_required=False)
    names, texts = corpus.label_names, corpus.dataset["text"]
    phrases = dict(zip(names, label_phrases(names, args.descriptions), strict=True))
    labelled, y = corpus.labelled, corpus.label_matrix(corpus.labelled)
    multilabel = args.multilabel
    if multilabel is None:
        multilabel = bool(len(labelled)) and not corpus.single_label
    if not multilabel and len(labelled) and not corpus.single_label:
        raise UserError("--multilabel false: some labelled rows have several labels, or none")

    # Examples are never among the rows that measure the agreement, nor are texts much like them.
    def draw(rows, n):
        return np.sort(np.random.default_rng(args.seed).permutation(rows)[:n])

    examples = labelled[draw_examples(y, args.demonstrations, seed=args.seed)]
    others = labelled[~np.isin(corpus.groups[labelled], corpus.groups[examples])]
    checked, unlabelled = draw(others, args.check_rows), draw(corpus.unlabelled, args.max_texts)
    asked = np.concatenate([checked, unlabelled])
    if not len(asked):
        raise UserError(f"{args.data}: no text to label, and no labelled one to check")
    further = shlex.split(args.train_flags)
    if args.train and not len(labelled) and not any(w.startswith("--test_data") for w in further):
        raise UserError(
            "--train: there is no labelled text to test the tagger on; label some, or name a file "
            "of others with --train_flags='--test_data FILE'"
        )
    print(f"\nto label: {len(unlabelled):,} texts; to check: {len(checked):,} labelled ones")

    # Fill the template with everything but the text.
    answers = AnswerFormat(tuple(names), multilabel)
    instruction, write = answers.instruction, answers.write
    if not args.endpoint:  # the answer is a name, or yes and no
        instruction, write = ("" if multilabel else ONE_NAME), ", ".join
    pairs = [
        (texts[int(row)], write([names[j] for j in np.flatnonzero(multi_hot)]))
        for row, multi_hot in zip(examples, corpus.label_matrix(examples), strict=True)
    ]
    prompt = Prompt(template, phrases, pairs, instruction, args.max_characters)

    def prompt_of(i):
        return prompt.fill(texts[int(asked[i])])

    # Ask. Answers are kept as they come, so that an interruption loses none.
    budget = args.budget()
    with AnswerCache(cache_folder(args.cache_dir) / "llm_answers.sqlite") as cache:
        try:
            if args.endpoint:
                options = {"schema": answers.schema, "temperature": args.temperature, "key": key}
                options |= {"max_tokens": args.max_tokens}
                options |= {"timeout": args.timeout, "retries": args.retries}
                endpoint = Endpoint(
                    args.endpoint, args.model, cache=cache, budget=budget, **options
                )
                answering = ask_endpoint(endpoint, prompt_of, len(asked), answers, args)
                labelling = asyncio.run(answering)
            else:
                prompts = [prompt_of(i) for i in range(len(asked))]
                labelling = ask_local_model(prompts, phrases, multilabel, cache, args)
        except KeyboardInterrupt:
            print("stopped; the answers so far are kept: the same command goes on", flush=True)
            raise

    # How far does the model agree with the labels of the checked rows?
    options = {"multilabel": multilabel, "review_below": args.review_below}
    rows = LlmLabels(corpus, asked, labelling, **options)
    y_true, y_pred = rows.compared()
    metrics, table = {}, "No labelled text was checked: nobody knows how good the labels are."
    if len(y_true):
        measured, per_label = agreement(y_true, y_pred, names)
        metrics = {f"agreement_{name}": value for name, value in measured.items()}
        table = agreement_table(measured, per_label)

    # Write the rows, those to look at, and the report.
    rows.write(output_dir / "labelled.jsonl", args)
    n_labelled = int(labelling.answered[len(checked) :].sum())
    metrics |= {"labelled": n_labelled, "left_unlabelled": len(unlabelled) - n_labelled}
    metrics |= {"to_review": rows.write_review(output_dir / "to_review.csv"), "asked": len(asked)}
    metrics |= {"budget_spent": budget.spent}
    metrics |= asdict(budget.used) | {"cost": budget.cost}
    write_json(output_dir / "metrics.json", metrics)
    summary = describe(metrics, args)
    with atomic_write(output_dir / "README.md") as file:
        file.write(
            f"# Labels by {args.model}\n\n{date.today()}\n\n```bash\n{command_line()}\n```\n\n"
            f"{summary}\n\n{table}\n\n## Prompt\n\n~~~\n{prompt.fill('(a text)')}\n~~~\n\n"
            f"## Data\n\n```\n{corpus.describe()}\n```\n"
        )
    print(f"\n{table}\n\n{summary}\n\nEverything is in {output_dir}:")
    print("labelled.jsonl, to_review.csv, README.md and metrics.json.")

    # Distil the labels into a tagger.
    if args.train:
        words = [f"--data={output_dir / 'labelled.jsonl'}", "--weight_column=confidence"]
        words += [f"--empty_labels={args.empty_labels}", f"--seed={args.seed}"]
        words += ["--text_columns", *args.text_columns]
        words += [f"--cache_dir={args.cache_dir}"] if args.cache_dir else []
        content = hashlib.sha256((output_dir / "labelled.jsonl").read_bytes()).hexdigest()
        command = (TRAINING_RECIPE, *words, *further)
        job = Job("self_training", output_dir / "tagger", command, (content,), resumable=True)
        if not job.finished and run_jobs([job], n_parallel=1, keep_models=True):
            raise UserError("--train: the training failed, see above; the labels are kept")
        print(f"The tagger is in {job.folder}.")


async def ask_endpoint(endpoint, prompt_of, n_texts, answers, args) -> Labelling:
    """Ask a server, with a bar of answers that says what they have cost."""
    budget = endpoint.budget
    options = {"samples": args.samples, "attempts": args.attempts, "concurrency": args.concurrency}
    with progress_bar("asking", n_texts * args.samples, unit="answers") as bar:

        def on_answer():
            cost = f", cost {budget.cost:.4f}" if budget.cost else ""
            bar.set_postfix_str(f"{budget.used.tokens:,} tokens{cost}", refresh=False)
            bar.update()

        async with endpoint:
            return await ask_for_labels(
                endpoint, prompt_of, n_texts, answers, on_answer=on_answer, **options
            )


def ask_local_model(prompts, phrases, multilabel, cache, args) -> Labelling:
    """Compute the probabilities of the labels here, of the texts that the cache does not have."""
    folder = cache_folder(args.cache_dir)
    ends = list(phrases)
    if multilabel:
        meanings = ["; ".join(phrases[name]) for name in phrases]
        ends = [QUESTION.format(*pair) for pair in zip(phrases, meanings, strict=True)]
    model = {"model": args.model, "bf16": args.bf16, "files": folder_fingerprint(args.model)}
    requests = [{**model, "prompt": text, "answers": ends} for text in prompts]
    scores = [cache.get(request) for request in requests]
    missing = [i for i, values in enumerate(scores) if values is None]
    if missing:
        scorer = load_causal_scorer(args.model, folder, batch_size=args.batch_size, bf16=args.bf16)
        score = scorer.yes_no_scores if multilabel else scorer.label_scores
        with progress_bar("reading", len(missing), unit="texts") as bar:
            for rows, values in score([prompts[i] for i in missing], ends):
                done = [missing[row] for row in rows]
                for i, row_scores in zip(done, values.tolist(), strict=True):
                    scores[i] = row_scores
                cache.put((requests[i], scores[i]) for i in done)
                bar.update(len(rows))
    logits, problems = np.array(scores), [""] * len(prompts)
    if multilabel:  # labels are rare, each in its way: their means say nothing of the model
        return Labelling(sigmoid(logits), problems)
    if args.calibrate and len(logits) >= FEWEST_TO_CALIBRATE:
        logits = batch_calibrated(logits)
    return Labelling(softmax(logits), problems)


def describe(metrics: dict, args: LlmLabelsArguments) -> str:
    """Return what was labelled, what to look at, and what it has cost, in sentences."""
    text = f"{metrics['labelled']:,} texts have labels of the model, "
    text += f"{metrics['left_unlabelled']:,} have none. {metrics['to_review']:,} of the "
    text += f"{metrics['asked']:,} texts that it read are to look at (to_review.csv)."
    if args.endpoint:
        text += f" This run sent {metrics['requests']:,} requests: {metrics['input_tokens']:,} "
        text += f"tokens sent, {metrics['output_tokens']:,} received"
        text += f", cost {metrics['cost']:.4f}." if metrics["cost"] else "."
    if metrics["budget_spent"]:
        text += " Then the budget was spent; the same command goes on with the texts that are left."
    return text


if __name__ == "__main__":
    with exit_on_user_error():
        main()
