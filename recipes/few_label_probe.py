"""Classify texts with few labels (8 to a few hundred): logistic regression and self-training.

Why: this is the best recipe when labels are few. Each text gets two vectors: the embedding of a
sentence encoder, and a vector of its words, from latent semantic analysis (Deerwester et al. 1990)
of your own texts, also unlabelled ones, which covers the terms of your domain. One logistic
regression per label, with more weight on rare labels, is fitted to both vectors in a second. The
name of a label counts as one more training text for it, so that even labels without a labelled text
can be predicted. Then comes self-training (Scudder 1965): the unlabelled texts with the most
confident predictions become training texts with less weight, round after round, as long as the F1
on the validation set does not fall.

Every text gets its best label and all other labels with a probability of at least one half. If all
labelled texts have exactly one label, a text gets only the best; if some have none (--empty_labels
negative), only the labels with a probability of at least one half.

    accelerate launch recipes/few_label_probe.py --config recipes/configs/few_label_sample.yaml
    accelerate launch recipes/few_label_probe.py --data issues.jsonl --train_size 64

Data: as for recipes/github_tagger.py, with the same split and the same nested --train_size, so that
figures are comparable; texts that --train_size leaves out count as unlabelled. Embeddings are
cached: a second run on the same texts takes seconds.

Expect on one CPU core with the default encoder: embedding 1,000 texts of at most 256 tokens takes
41 seconds in bfloat16, the rest two seconds. Issues of huggingface/datasets (12 labels, five seeds)
have micro / macro F1 .62 / .34 with 8 training texts, .75 / .37 with 16, .78 / .37 with 64 and
.82 / .55 with 768; BANKING77 has accuracy .82 with five texts for each of 77 intents, .86 with ten.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product
from time import perf_counter

import numpy as np
from transformers import TrainingArguments

from shared.cli import (
    UserError,
    choose_precision,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.data import SplitArguments, cache_folder, load_and_split
from shared.evaluation import at_least_one, choose_labels, f1_scores
from shared.methods import (
    CachedEmbedder,
    MeanPooling,
    embed_split,
    fit_probe,
    flatten_phrases,
    label_phrases,
    latent_semantic_vectors,
    self_train,
)
from shared.models import (
    DEFAULT_MODEL,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_model,
)
from shared.reports import (
    TaggerCard,
    describe_output,
    format_examples,
    split_metrics,
    write_results,
)
from shared.training import LengthGroupedTrainer, PaddingCollator, ReadableProgress

# The settings that validation chooses from: the weight of the word vectors beside the embeddings,
# and (C, balance) of `fit_probe`: C is the inverse strength of regularisation, balance the power of
# the weight of positives. Few texts need strong regularisation (a small C); many texts, and
# classes that exclude each other, need less.
WORD_WEIGHTS = (1.0, 0.4, 0.0)
SETTINGS = ((1, 1.0), (5, 0.75))
SINGLE_LABEL_SETTINGS = ((10, 0.0), (100, 0.0))
MINIMUM = {"vocabulary_size": 1, "max_unlabelled": 0, "name_weight": 0, "self_training": 0}


@dataclass
class ProbeArguments(SplitArguments, TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(256, "Tokens per text; longer texts are truncated (default: 256).")
    vocabulary_size: int = flag(256, "Maximum dimensions of the word vectors (default: 256).")
    name_weight: float = flag(
        1.0, "Weight of a label's name as a training text; 0 if it has no meaning (default: 1)."
    )
    descriptions: str | None = flag(
        None, "YAML file: label to phrase or phrases that replace its name (default: none)."
    )
    max_unlabelled: int = flag(
        20_000, "Maximum number of unlabelled texts to use at all (default: 20,000)."
    )
    self_training: int = flag(
        1000,
        "Maximum number of unlabelled texts to embed for self-training, in addition to training "
        "rows that --train_size leaves out; 0: no self-training (default: 1000).",
    )
    bf16: bool | None = flag(
        None,
        "Compute in bfloat16; false for exact figures (default: if the hardware supports it).",
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    output_dir: str = flag(
        "outputs/few_label_probe", "Output folder (default: outputs/few_label_probe)."
    )

    def __post_init__(self):
        for name, least in MINIMUM.items():
            if getattr(self, name) < least:
                raise UserError(f"--{name} {getattr(self, name)}: must be {least} or more")
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Load, split, embed, learn word vectors, fit, self-train, evaluate once, save."""
    args = parse_arguments(ProbeArguments, description=__doc__)
    output_dir = start_recipe(args)

    # Load and split; y maps each part to its multi-hot labels, (rows, labels). `label_of` is the
    # label of each phrase.
    corpus, split = load_and_split(args, seed=args.seed)
    rows, y, single_label = split.rows, split.labels, corpus.single_label
    phrases, label_of = [], np.zeros(0, int)
    if args.name_weight:
        phrases, label_of = flatten_phrases(label_phrases(corpus.label_names, args.descriptions))

    # Embed: the mean of the encoder's last hidden states. The Trainer only predicts here. All
    # labelled rows are embedded, so that runs with other seeds and training sizes find them cached.
    model_folder = resolve_model(args.model)
    tokenizer = load_tokenizer(model_folder)
    encoder = load_encoder(model_folder, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    trainer = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        args=args,
        data_collator=PaddingCollator(tokenizer),
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )
    embed = CachedEmbedder(trainer, tokenizer, model_folder, cache_folder(args.cache_dir))
    embeddings = embed_split(split, embed)
    texts = {**{part: rows[part]["text"] for part in rows}, "names": phrases}
    embeddings["names"] = embed(phrases) if phrases else embeddings["train"][:0]
    if len(corpus.unlabelled):
        texts["unlabelled"] = corpus.dataset.select(corpus.unlabelled[:3])["text"]
        embeddings["unlabelled"] = embed(texts["unlabelled"])

    # Draw the unlabelled texts. Word vectors are learned from all of them, self-training uses those
    # that are embedded: training rows that --train_size leaves out, and every n-th of the others
    # (the same for all seeds, so that they are cached).
    unlabelled = split.unlabelled
    if len(unlabelled) > args.max_unlabelled:
        rng = np.random.default_rng(args.seed)
        unlabelled = np.sort(rng.choice(unlabelled, args.max_unlabelled, replace=False))
    extra, embeddings["extra"] = split.left_out, embeddings.pop("left_out")
    if args.self_training and len(corpus.unlabelled):
        step = -(-len(corpus.unlabelled) // args.self_training)
        sampled = corpus.unlabelled[::step]
        vectors = embed(corpus.dataset.select(sampled)["text"])
        extra = np.concatenate([extra, sampled])
        embeddings["extra"] = np.concatenate([embeddings["extra"], vectors])
    usable = np.isin(extra, unlabelled)
    extra, embeddings["extra"] = extra[usable], embeddings["extra"][usable]
    texts["extra"] = corpus.dataset.select(extra)["text"]
    started = perf_counter()
    if args.process_index != 0:
        return

    # Learn the word vectors from the training and the unlabelled texts, none of them held out.
    fit_texts = [*texts["train"], *corpus.dataset.select(unlabelled)["text"]]
    word_vectors = latent_semantic_vectors(
        fit_texts, *texts.values(), n_components=args.vocabulary_size, seed=args.seed
    )
    words = dict(zip(texts, word_vectors, strict=True))

    def choose(scores):
        if args.empty_labels == "unlabelled" and not single_label:
            return at_least_one(scores)
        return choose_labels(scores, 0.5, single_label=single_label)

    def quality(score, valid):
        f1 = f1_scores(y["valid"], choose(score(valid)))
        return f1["micro_f1"] + f1["macro_f1"]

    # Fit the logistic regressions with each setting, and keep the best on validation.
    best = -1.0
    grid = product(WORD_WEIGHTS, SINGLE_LABEL_SETTINGS if single_label else SETTINGS)
    for weight, (C, balance) in grid:
        vectors = {k: np.concatenate([embeddings[k], weight * words[k]], axis=1) for k in texts}
        names = {"name_vectors": vectors["names"], "name_labels": label_of}
        settings = {"C": C, "balance": balance, "name_weight": args.name_weight}
        fit = partial(fit_probe, **names, **settings, single_label=single_label)
        score = fit(vectors["train"], y["train"])
        if (f1 := quality(score, vectors["valid"])) > best:
            best, chosen = f1, (score, fit, vectors, weight, C, balance)
    score, fit, vectors, weight, C, balance = chosen

    # Self-training, while the F1 on validation does not fall.
    rounds = 0
    if args.self_training:
        quality = partial(quality, valid=vectors["valid"])
        train = vectors["train"], y["train"], vectors["extra"]
        score, rounds = self_train(score, fit, *train, choose=choose, quality=quality)
    print_once(
        f"best on validation: word weight {weight:g}, C {C:g}, balance {balance:g}, "
        f"{rounds} rounds of self-training on {len(extra):,} unlabelled texts"
    )
    trained = perf_counter()

    # Evaluate on the test set, once. The time per text includes its embedding.
    scores = {k: score(vectors[k]) for k in ("valid", "test", "unlabelled") if k in vectors}
    seconds_per_text = embed.seconds / embed.n_texts
    seconds_per_text += (perf_counter() - trained) / sum(map(len, scores.values()))
    predicted = {part: choose(values) for part, values in scores.items()}
    figures = split_metrics(y, scores, predicted)
    figures |= {"embed_runtime": embed.seconds, "train_runtime": trained - started}
    figures |= {"test_runtime": seconds_per_text * len(y["test"]), "seed": args.seed}

    # Save metrics, predictions, plots and the card; tag three unlabelled texts as an example.
    test = scores["test"], predicted["test"]
    report = write_results(output_dir, split, *test, figures, card=TaggerCard())
    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}")
    if "unlabelled" in texts:
        print("\nTags for texts without labels")
        examples = scores["unlabelled"], predicted["unlabelled"]
        print(format_examples(texts["unlabelled"], *examples, corpus.label_names))
    print(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
