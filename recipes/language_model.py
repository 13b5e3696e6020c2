"""Train a language model on your texts, from counts to a transformer, and let it write.

Why: each architecture is one step from a table of counts to GPT, and all are measured alike: the
same split, every token and every end of a text predicted once. So their figures compare with each
other and with published ones. The model starts at random, with a vocabulary of its own; a folder or
hub id as --architecture is trained further with its own vocabulary.

    accelerate launch recipes/language_model.py --config recipes/configs/language_model_names.yaml
    accelerate launch recipes/language_model.py --data my_texts.txt --architecture lstm --prompt The

- counts: how often each token followed the last ones, with additive smoothing. Nothing is trained.
- bigram: one linear layer from a token to the next one; its optimum are the counts of pairs.
- mlp: a hidden layer over the last --context_size tokens (Bengio et al. 2003).
- rnn, lstm, gru: recurrent networks (Elman 1990; Hochreiter and Schmidhuber 1997; Cho et al. 2014).
- gpt: a decoder from its parts (shared/models/transformer.py), equal to GPT-2.

Data: a text file, a document on each line (names) or one long document (--documents file), or the
rows of any other file; labels are not read. A token stands between two documents. By default all
are packed into blocks of --block_size tokens without padding; with --pack false each row is one
document, which sees no other one.

The figures are the negative log-likelihood per token in nats, perplexity (its exponential), and
bits per character, which also compares models with different tokens; the end of a document counts
as a token and as a character. Where a token is unknown ([UNK], of a vocabulary that is too small)
it hides characters, and bits per character are left out; unknown_share in metrics.json says how
many tokens are. counts and mlp see their whole context, wherever a block begins.

Expect on the 32,033 names of makemore, validation loss: counts of pairs 2.451 (published 2.454 on
all names), mlp 2.116 with three characters of context (2.168), 1.992 with eight, gru 1.946. On Tiny
Shakespeare, at nanoGPT's CPU setting but for the learning rate: gpt 1.799 (1.88). It takes seconds
to nine minutes on one busy core (recipes/FIGURES.md).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from transformers import set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
    write_json,
)
from shared.cli.files import atomic_write
from shared.data import DocumentArguments, load_documents
from shared.methods import SamplingArguments, sample_tokens
from shared.models import (
    LANGUAGE_MODELS,
    LanguageModelArguments,
    build_language_model,
    count_ngrams,
    encode_prompt,
    load_causal_language_model,
    load_tokenizer,
    longest_input,
    resolve_model,
    train_lossless_tokenizer,
)
from shared.plots import plot_next_tokens, plot_training_curve
from shared.reports import (
    fit_metrics,
    likelihood_figures,
    likelihood_table,
    push_to_hub,
    write_model_card,
    writer_usage,
)
from shared.training import (
    CheckpointArguments,
    CheckpointOnSignal,
    LengthGroupedTrainer,
    NextTokenCollator,
    ReadableProgress,
    check_health,
    find_checkpoint,
    next_token_loss,
    remove_checkpoints,
    token_blocks,
    token_losses,
    token_stream,
)

MOST_TRAIN_TOKENS = 300_000  # of the training set, for its figures at the end
MOST_PLOTTED = 100  # tokens of a vocabulary whose table is drawn


@dataclass
class WriterArguments(
    DocumentArguments, LanguageModelArguments, SamplingArguments, CheckpointArguments
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    architecture: str = flag(
        "gpt",
        "counts, bigram, mlp, rnn, lstm, gru, gpt; or a causal language model to train further, a "
        "hub id or a folder, also an output folder of this recipe (default: gpt).",
    )
    tokens: Literal["characters", "words", "bpe", "byte_bpe"] = flag(
        "characters",
        "What the tokens are: characters, whole words, pieces of words that grow from characters "
        "(bpe) or from bytes (byte_bpe); learned from the training texts (default: characters).",
    )
    vocab_size: int = flag(
        8000, "Maximum number of different tokens (default: 8000).", least=3, most=10_000_000
    )
    block_size: int = flag(
        128, "Tokens that the model reads at once (default: 128).", least=2, most=1_000_000
    )
    pack: bool = flag(
        True,
        "Pack documents one after another into full blocks; false: each row is one document, "
        "padded to the longest of its batch (default: true).",
    )
    ngram_size: int = flag(
        2, "counts: tokens of an n-gram, the predicted one included (default: 2).", least=1, most=50
    )
    smoothing: float = flag(0.1, "counts: added to each count (default: .1).", above=0, most=1e6)
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag(
        "outputs/language_model", "Output folder (default: outputs/language_model)."
    )
    num_train_epochs: float = flag(10, "Epochs (default: 10).")
    learning_rate: float = flag(1e-3, "Peak learning rate (default: 1e-3).")
    lr_scheduler_type: str = flag("cosine", "Course of the learning rate (default: cosine).")
    warmup_steps: float = flag(0.05, "Warm-up steps; below 1: share of all steps (default: .05).")
    weight_decay: float = flag(0.1, "Weight decay (default: .1).")
    adam_beta2: float = flag(0.99, "Second moment of AdamW (default: .99).")
    per_device_train_batch_size: int = flag(32, "Blocks per step and device (default: 32).")
    per_device_eval_batch_size: int = flag(64, "Blocks per evaluation batch (default: 64).")
    bf16: bool | None = flag(
        None,
        "Train in bfloat16 (default: if the hardware supports it and the model is a trained one).",
    )
    remove_unused_columns: bool = flag(False, "Must stay false (default: false).")

    def __post_init__(self):
        if self.architecture == "counts" and self.health_check:
            raise UserError("--health_check: counts have no training to check")
        if self.architecture in ("counts", *LANGUAGE_MODELS):
            self.bf16 = bool(self.bf16)  # these are too small to gain
        super().__post_init__()


def main() -> None:
    """Load and split texts, learn a vocabulary, make blocks, train, evaluate, write, save."""
    args = parse_arguments(WriterArguments, description=__doc__)
    output_dir = start_recipe(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    set_seed(args.seed)

    # Load and split.
    with args.main_process_first(desc="loading texts"):
        documents = load_documents(args)
    print_once(f"\nData\n{documents.describe()}")

    # The vocabulary and, unless n-grams are counted below, the model.
    is_new = args.architecture in ("counts", *LANGUAGE_MODELS)
    if is_new:
        tokenizer = train_lossless_tokenizer(documents.parts["train"], args.tokens, args.vocab_size)
        model = None if args.architecture == "counts" else build_language_model(args, tokenizer)
    else:
        folder = resolve_model(args.architecture, flag="architecture")
        tokenizer = load_tokenizer(folder)
        model = load_causal_language_model(folder, tokenizer=tokenizer)
        if model.config.model_type == "language-model-counts":
            raise UserError(
                f"--architecture {args.architecture}: counts cannot be trained further; count the "
                "texts with --architecture counts"
            )
        longest = longest_input(model)
        if longest is not None and args.block_size > longest:
            raise UserError(f"--block_size {args.block_size}: the model reads {longest:,} tokens")
    boundary = tokenizer.eos_token_id if documents.are_whole else None
    prompt = encode_prompt(tokenizer, args.prompt)

    # Blocks of tokens. Each token and, of whole documents, each end is predicted once.
    streams = {
        part: token_stream(texts, tokenizer, boundary) for part, texts in documents.parts.items()
    }
    n_train = len(streams["train"])
    if args.pack and n_train <= args.block_size:
        raise UserError(
            f"--block_size {args.block_size}: the training texts have {n_train:,} tokens only; "
            "lower it, or add texts"
        )
    if not args.pack and boundary is None:
        raise UserError("--pack false: there is only one document; remove the flag")
    for part in ("valid", "test"):
        if getattr(args, f"{part}_size") and len(streams[part]) < 2:
            raise UserError(f"--{part}_size: leaves no token to predict; raise it, or set it to 0")
    if model is None:
        try:
            model = count_ngrams(
                streams["train"],
                args.ngram_size,
                vocab_size=len(tokenizer),
                smoothing=args.smoothing,
                boundary=boundary,
            )
        except ValueError as error:
            raise UserError(f"--ngram_size {args.ngram_size}: {error}; lower it") from error
    is_own = type(model).__module__.startswith("shared.")
    context_size = (is_own and getattr(model, "context_size", None)) or 1
    blocks = {
        part: token_blocks(
            stream,
            args.block_size,
            boundary=None if args.pack else boundary,
            context_size=context_size,
        )
        for part, stream in streams.items()
        if len(stream) > 1
    }
    n_weights = sum(parameter.numel() for parameter in model.parameters())
    print_once(f"{n_train:,} training tokens, {len(tokenizer):,} different; {n_weights:,} weights")

    trainer = LengthGroupedTrainer(
        model=model,
        args=args,
        train_dataset=blocks["train"],
        eval_dataset=blocks.get("valid"),
        processing_class=tokenizer,
        data_collator=NextTokenCollator(tokenizer.pad_token_id),
        compute_loss_func=next_token_loss,
        preprocess_logits_for_metrics=token_losses,
        compute_metrics=lambda _: {},  # with None the Trainer drops the losses of the tokens
        callbacks=[CheckpointOnSignal(), ReadableProgress()],
    )
    if args.health_check:
        check_health(trainer, None, uninformed=math.log(len(tokenizer)))
        return

    # Train; there is nothing to train in counts.
    history: list[dict] = []
    training: dict[str, float] = {}
    if args.architecture != "counts":
        print_once("\nTraining")
        training = trainer.train(resume_from_checkpoint=checkpoint).metrics
        history = list(trainer.state.log_history)

    # Evaluate: the mean over all tokens of a part.
    figures = {}
    # The unknown token of GPT-2 is the one between two texts; its pieces are bytes, all known.
    unknown = tokenizer.unk_token_id
    has_unknown = unknown not in (None, tokenizer.bos_token_id, tokenizer.eos_token_id)
    for part, rows in blocks.items():
        n_tokens = len(streams[part]) - 1
        share = min(MOST_TRAIN_TOKENS / n_tokens, 1) if part == "train" else 1
        chosen = np.linspace(0, len(rows) - 1, max(int(share * len(rows)), 1)).astype(int)
        rows = rows.select(chosen)
        figures[part] = likelihood_figures(
            trainer.predict(rows).metrics["test_loss"],
            n_tokens,
            documents.n_characters(part),
            n_measured=sum(rows["length"]) - sum(rows["n_earlier"]),
            unknown=int((streams[part][1:] == unknown).sum()) if has_unknown else 0,
        )
    report = likelihood_table(figures)

    # Save the model and the tokenizer, before the samples are written.
    trainer.save_model()
    if args.process_index != 0:
        return
    (output_dir / "plots").mkdir(exist_ok=True)
    if history:
        plot_training_curve(history, output_dir / "plots" / "training_curve.png")
    is_counted_pair = args.architecture == "counts" and args.ngram_size == 2
    if (is_counted_pair or args.architecture == "bigram") and len(tokenizer) <= MOST_PLOTTED:
        shown = [token for token in range(len(tokenizer)) if token != tokenizer.unk_token_id]
        with torch.no_grad():
            logits = model(torch.tensor(shown, device=model.device)[:, None]).logits[:, 0, shown]
        names = [repr(tokenizer.decode([token]))[1:-1] for token in shown]
        plot_next_tokens(
            logits.softmax(1).cpu().numpy(), names, output_dir / "plots" / "next_tokens.png"
        )

    # Write. One long text has no beginning that was learned, so samples begin with its first token.
    start = [boundary, *prompt] if boundary is not None else prompt or streams["train"][:1].tolist()
    samples = [
        tokenizer.decode(start[boundary is not None :] + tokens)
        for tokens in sample_tokens(
            model,
            start,
            args,
            window=max(args.block_size, 2 * context_size),
            end=boundary,
            seed=args.seed,
        )
    ]
    with atomic_write(output_dir / "samples.txt") as file:
        file.write("".join(f"{sample}\n" for sample in samples))
    report += "\n\nSamples\n" + "\n".join(samples)

    # Save the metrics and the card, whose example must fit into the model.
    longest = longest_input(model) or 10**9
    shown, n_shown = None, 1
    if boundary is None:
        shown = tokenizer.decode(start[: max(longest // 2, 1)])
        n_shown = len(tokenizer(shown, add_special_tokens=False)["input_ids"])
    metrics = {
        f"{part}_{name}": v for part, values in figures.items() for name, v in values.items()
    }
    sizes = {"n_weights": n_weights, "vocab_size": len(tokenizer), "seed": args.seed}
    fit = fit_metrics(history)
    divided = documents.method.metrics()
    write_json(output_dir / "metrics.json", metrics | training | sizes | fit | divided)
    write_model_card(
        output_dir,
        title=f"Language model ({args.architecture})",
        base_model=None if is_new else args.architecture,
        task="text-generation",
        description=f"Predicts the next token of a text; {n_weights:,} weights, a vocabulary of "
        f"{len(tokenizer):,} tokens" + (f" ({args.tokens.replace('_', ' ')})." if is_new else "."),
        data=documents.describe(),
        metrics={},
        verdict=fit.get("fit_explained"),
        report=report,
        usage=writer_usage(
            output_dir,
            own_architecture=is_own,
            start=shown,
            max_new_tokens=max(min(longest - n_shown, 50), 1),
        ),
        limits="It writes what its training texts make likely, true or not. The figures are those "
        "of texts from the same source.",
    )
    remove_checkpoints(args.output_dir)
    push_to_hub(output_dir, args)
    print(f"\n{report}\n\nEverything is in {output_dir}.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
