"""Train a tokenizer on your texts: BPE, byte-level BPE, WordPiece, Unigram, words or characters.

Why: a network trained from scratch needs a vocabulary of its own texts, and a small one, because
most weights of a small network are token embeddings. For fine-tuning, keep the tokenizer of the
model; the comparison then shows whether it splits your words (names of modules, another language)
into many pieces, and whether your texts fit into the model's input. Unlike the other recipes, this
one builds no Trainer: counting words and pairs needs no gradients.

    accelerate launch recipes/train_tokenizer.py --config recipes/configs/tokenizer_sample.yaml
    accelerate launch recipes/train_tokenizer.py --data my_issues.jsonl --algorithm bpe

Then: AutoTokenizer.from_pretrained("outputs/train_tokenizer"). To compare two tokenizers of your
own, pass the folder of the first as --model when you train the second.

Data: all texts of --data, labelled or not, with the same data flags as other recipes. A share of
the texts is held out for evaluation; near duplicates stay on one side. Ids 0 to 4 are [UNK], [PAD],
[CLS], [SEP] and [MASK]. The same texts give the same tokenizer.

Fertility is the number of tokens per word (Rust et al. 2021): with more pieces per word, the input
is longer. The model learns nothing from an unknown token. Choose the smallest vocabulary above
which fertility hardly decreases.

Expect on 6,467 issues of huggingface/datasets (recipes/configs/tokenizer_issues.yaml) with 16,000
tokens, evaluated on 715 held-out issues: fertility 1.17 with WordPiece, 1.07 with BPE, .83 with
Unigram, whose pieces cross punctuation, 1.09 with whole words, 2 % of them unknown, and 1.35 with
the tokenizer of the default encoder. It takes ten seconds on a busy core, for Unigram minutes.
"""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal

from sklearn.model_selection import GroupShuffleSplit

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    is_main_process,
    parse_arguments,
    start_recipe,
    write_json,
)
from shared.data import DataArguments, load_data
from shared.models import (
    DEFAULT_MODEL,
    load_tokenizer,
    resolve_model,
    tokenization_statistics,
    train_tokenizer,
)
from shared.reports import write_model_card

WORDS_SHOWN = 15  # of the example that both tokenizers split


@dataclass
class TokenizerArguments(DataArguments):
    """The flags of this recipe, which uses no Trainer."""

    algorithm: Literal["bpe", "wordpiece", "unigram", "words", "byte_bpe", "characters"] = flag(
        "wordpiece",
        "Tokenisation algorithm; byte_bpe: BPE of bytes, which knows every text; words: whole "
        "words (default: wordpiece).",
    )
    vocab_size: int = flag(
        8000,
        "Maximum size of the vocabulary, with five special tokens (default: 8000).",
        least=1,
        most=10_000_000,
    )
    lowercase: bool = flag(True, "Convert texts to lower case (default: true).")
    strip_accents: bool = flag(False, "Remove accents: é becomes e (default: false).")
    min_frequency: int = flag(
        2,
        "Minimum count of a pair, word or character; not used by unigram (default: 2).",
        least=0,
    )
    max_length: int = flag(512, "Tokens per text that the model will read (default: 512).", least=1)
    model: str = flag(
        DEFAULT_MODEL,
        "Tokenizer to compare with: a hub id or a folder, also an output folder of this recipe "
        f"(default: {DEFAULT_MODEL}).",
    )
    held_out_share: float = flag(
        0.1, "Share of the texts held out for evaluation (default: .1).", above=0, below=1
    )
    output_dir: str = flag(
        "outputs/train_tokenizer", "Output folder (default: outputs/train_tokenizer)."
    )
    seed: int = flag(42, "Random seed of the held-out texts (default: 42).")


def main() -> None:
    """Load, split, train the tokenizer, save it, compare it on held-out texts."""
    args = parse_arguments(TokenizerArguments, description=__doc__)
    if not is_main_process():
        return  # one process is enough
    output_dir = start_recipe(args)

    # The tokenizer to compare with. A folder of this recipe has a tokenizer but no model.
    folder = Path(args.model).expanduser()
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    baseline = load_tokenizer(str(folder) if has_tokenizer else resolve_model(args.model))

    # Load and split; near duplicates stay on one side.
    corpus = load_data(args, labels_required=False)
    print(f"\nData\n{corpus.describe(brief=True)}")
    split = GroupShuffleSplit(1, test_size=args.held_out_share, random_state=args.seed)
    try:
        train, held_out = next(split.split(corpus.groups, groups=corpus.groups))
    except ValueError:  # too few groups
        raise UserError(
            f"--held_out_share {args.held_out_share}: leaves none of {len(corpus.groups)} texts "
            "(near duplicates count once) on one side; change it, or add texts"
        ) from None
    print(f"{len(train):,} texts to learn from, {len(held_out):,} to measure on")

    def texts(rows):  # in batches, so that memory does not grow with the data
        for batch in corpus.dataset.select(rows).select_columns("text").iter(1000):
            yield from batch["text"]

    # Train on the training texts, and save.
    started = perf_counter()
    tokenizer = train_tokenizer(
        texts(train),
        args.algorithm,
        args.vocab_size,
        lowercase=args.lowercase,
        strip_accents=args.strip_accents,
        min_frequency=args.min_frequency,
        max_length=args.max_length,
    )
    runtime = perf_counter() - started
    tokenizer.save_pretrained(output_dir)
    if len(tokenizer) < args.vocab_size:
        print(f"note: the texts give {len(tokenizer):,} tokens, not {args.vocab_size:,}")

    # Compare both tokenizers on the held-out texts, and show how they split one example.
    names, tokenizers = [args.output_dir, args.model], [tokenizer, baseline]
    figures = [
        {"vocab_size": len(each)}
        | tokenization_statistics(each, texts(held_out), max_length=args.max_length)
        for each in tokenizers
    ]
    sentence = " ".join(next(texts(held_out[:1])).split()[:WORDS_SHOWN])
    report = f"{table(names, figures, args.max_length)}\n\n{sentence}"
    for name, each in zip(names, tokenizers, strict=True):
        report += f"\n\n{name}:\n{' '.join(each.tokenize(sentence, verbose=False))}"

    # Save the metrics and the card.
    metrics, baseline_metrics = figures
    metrics |= {f"baseline_{name}": value for name, value in baseline_metrics.items()}
    metrics |= {"train_samples": len(train), "test_samples": len(held_out)}
    write_json(output_dir / "metrics.json", metrics | {"train_runtime": runtime, "seed": args.seed})
    write_model_card(
        output_dir,
        title="Tokenizer",
        base_model=None,
        task="tokenizer",
        description=f"{len(tokenizer):,} tokens, learned from texts of one source by "
        f"{args.algorithm}; ids 0 to 4 are [UNK], [PAD], [CLS], [SEP] and [MASK].",
        data=f"{corpus.describe(brief=True)}\n{len(train):,} texts to learn from, "
        f"{len(held_out):,} to measure on",
        metrics={},
        report=report,
        usage=f"""```python
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{output_dir}")
```""",
        limits="Use it for a network trained from scratch; a model that was trained with another "
        "tokenizer cannot read its ids.",
    )
    print(f"\n{len(held_out):,} held-out texts\n\n{report}")
    print(f"\nEverything is in {output_dir}: the tokenizer, README.md (a card), metrics.json.")


def table(names: list[str], figures: list[dict[str, float]], max_length: int) -> str:
    """Return a table of the figures, one column per tokenizer."""
    rows = {
        "tokens in the vocabulary": ("vocab_size", ",.0f"),
        "tokens per word (fertility)": ("fertility", ".2f"),
        "words split": ("words_split", ".1%"),
        "tokens unknown": ("unknown_tokens", ".2%"),
        "tokens per text": ("tokens_per_text", ",.0f"),
        f"texts beyond {max_length} tokens": ("texts_cut", ".1%"),
    }
    widths = [max(len(name), 8) for name in names]
    cells = [("", names)]
    cells += [(row, [f"{f[key]:{form}}" for f in figures]) for row, (key, form) in rows.items()]
    return "\n".join(
        f"{row:<28}" + "".join(f"  {cell:>{w}}" for cell, w in zip(values, widths, strict=True))
        for row, values in cells
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
