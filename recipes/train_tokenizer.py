"""Learn a tokenizer from your texts: BPE, WordPiece, Unigram or whole words.

Why: a network trained from scratch wants a vocabulary of its texts, and a small one: most weights
of a small network are its token embeddings. For fine-tuning, keep the tokenizer that the model came
with; the comparison still tells whether it cuts your words to shreds (names of modules, another
language), and whether your texts fit into what the model reads. A recipe here builds a Trainer;
this one has none to build, since counting words and pairs needs no gradients.

    accelerate launch recipes/train_tokenizer.py --config recipes/configs/tokenizer_sample.yaml
    accelerate launch recipes/train_tokenizer.py --data my_issues.jsonl --algorithm bpe

Then: AutoTokenizer.from_pretrained("outputs/train_tokenizer"). To compare two of your own, name the
folder of the first as --model of the second.

Data: all texts of --data, labelled or not, with the flags that other recipes have. A share of them
is kept back to measure on; near duplicates are on one side. Ids 0 to 4 are [UNK], [PAD], [CLS],
[SEP] and [MASK]. The same texts give the same tokenizer.

Fertility is tokens per word (Rust et al. 2021): the finer the cut, the longer the input. An unknown
token is lost to the model. Take the smallest vocabulary from which on fertility hardly falls.

Expect on 6,467 issues of huggingface/datasets (recipes/configs/tokenizer_issues.yaml), 16,000
tokens, on 715 issues kept back: fertility 1.17 with WordPiece, 1.07 with BPE, .83 with Unigram,
whose pieces run across punctuation, 1.09 with whole words, of which 2 % are unknown; 1.35 with the
tokenizer of the default encoder. Ten seconds on a busy core, but minutes for Unigram.
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

WORDS_SHOWN = 15  # of the sentence that shows how both cut


@dataclass
class TokenizerArguments(DataArguments):
    """Flags of this recipe; there is no Trainer, so none of its flags."""

    algorithm: Literal["bpe", "wordpiece", "unigram", "words"] = flag(
        "wordpiece", "What the tokens are learned by; words: whole words (default: wordpiece)."
    )
    vocab_size: int = flag(8000, "Tokens at most, five special ones included (default: 8000).")
    lowercase: bool = flag(True, "Give up case (default: true).")
    min_frequency: int = flag(
        2, "Pairs or words seen less often are left out; not with unigram (default: 2 times)."
    )
    max_length: int = flag(512, "Tokens of a text that a model is to read (default: 512).")
    model: str = flag(
        DEFAULT_MODEL,
        "Whose tokenizer to compare with: a hub id, or a folder, also one that this recipe left "
        f"(default: {DEFAULT_MODEL}).",
    )
    held_out_share: float = flag(0.1, "Share of the texts to measure on (default: .1).")
    output_dir: str = flag("outputs/train_tokenizer", "Folder (default: as the recipe).")
    seed: int = flag(42, "Of which texts are kept back (default: 42).")

    def __post_init__(self):
        if not 0 < self.held_out_share < 1:
            raise UserError(f"--held_out_share {self.held_out_share}: must be between 0 and 1")


def main() -> None:
    """Load, keep some texts back, learn, save, measure."""
    args = parse_arguments(TokenizerArguments, description=__doc__)
    if not is_main_process():
        return  # one process does it all
    output_dir = start_recipe(args)
    alone = Path(args.model).expanduser()  # a tokenizer without a model, as this recipe leaves it
    is_alone = (alone / "tokenizer_config.json").is_file()
    baseline = load_tokenizer(str(alone) if is_alone else resolve_model(args.model))
    corpus = load_data(args, labels_required=False)
    print(f"\nData\n{corpus.describe(brief=True)}")

    # Texts to learn from and others to measure on, read as they are needed
    split = GroupShuffleSplit(1, test_size=args.held_out_share, random_state=args.seed)
    try:
        train, held_out = next(split.split(corpus.groups, groups=corpus.groups))
    except ValueError:  # too few groups
        raise UserError(
            f"--held_out_share {args.held_out_share}: leaves none of {len(corpus.groups)} texts "
            "(near duplicates are one) on one side; change it, or give more texts"
        ) from None
    print(f"{len(train):,} texts to learn from, {len(held_out):,} to measure on")

    def texts(rows):
        for batch in corpus.dataset.select(rows).select_columns("text").iter(1000):
            yield from batch["text"]

    started = perf_counter()
    tokenizer = train_tokenizer(
        texts(train),
        args.algorithm,
        args.vocab_size,
        lowercase=args.lowercase,
        min_frequency=args.min_frequency,
        max_length=args.max_length,
    )
    runtime = perf_counter() - started
    tokenizer.save_pretrained(output_dir)
    if len(tokenizer) < args.vocab_size:
        print(f"note: the texts give {len(tokenizer):,} tokens, not {args.vocab_size:,}")

    # On texts it has not seen, beside a tokenizer made of others
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

    # Save: figures, card; the tokenizer is there already
    own, other = figures
    write_json(
        output_dir / "metrics.json",
        own
        | {f"baseline_{name}": value for name, value in other.items()}
        | {"train_samples": len(train), "test_samples": len(held_out)}
        | {"train_runtime": runtime, "seed": args.seed},
    )
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
        limits="It goes with a network trained from scratch on its ids; a model that was trained "
        "with another tokenizer cannot read them.",
    )
    print(f"\n{len(held_out):,} texts kept back\n\n{report}")
    print(f"\nEverything is in {output_dir}: the tokenizer, README.md (a card), metrics.json.")


def table(names: list[str], figures: list[dict[str, float]], max_length: int) -> str:
    """Return the figures of tokenizers, one in a column."""
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
        f"{row:<28}" + "".join(f"  {cell:>{w}}" for cell, w in zip(found, widths, strict=True))
        for row, found in cells
    )


if __name__ == "__main__":
    with exit_on_user_error():
        main()
