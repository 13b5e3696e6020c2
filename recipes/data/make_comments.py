"""Write ``comments.jsonl``, the sample of short comments, from the lines in ``comments.yaml``.

    python recipes/data/make_comments.py            # writes recipes/data/comments.jsonl
    python recipes/data/make_comments.py --check    # exit status 1 if the file there differs

A comment is a line of its emotion, or one line for each of two emotions. Choices are made and slots
are filled; some comments get a sentence of context, and some are written carelessly. The only
source of randomness is that of ``make_sample.py``, which is the same on every Python.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml
from authors import CHOICE, SLOT, Dice

HERE = Path(__file__).parent
OUTPUT = HERE / "comments.jsonl"
SEED = 28


def fill(line, slots, dice):
    """Make the choices of a line and fill its slots, each slot with a different value."""
    while choice := CHOICE.search(line):
        chosen = dice.pick(choice[1].split("|"))
        line = line[: choice.start()] + chosen + line[choice.end() :]
    while slot := SLOT.search(line):
        name = slot[1].lower()
        value = dice.pick([value for value in slots[name] if value not in line])
        if slot[1] != name:  # at the start of a sentence
            value = value[0].upper() + value[1:]
        line = line[: slot.start()] + value + line[slot.end() :]
    return line


def styled(text, dice):
    """Vary the style: lower case, no final full stop, or more exclamation marks, at random."""
    if dice.chance(0.3):
        text = text.lower()
    if dice.chance(0.4):
        text = text.removesuffix(".")
    return text.replace("!", "!!") if dice.chance(0.2) else text


def compose():
    """Return all comments in random order, without duplicates."""
    material = yaml.safe_load((HERE / "comments.yaml").read_text(encoding="utf-8"))
    dice, slots = Dice(SEED), material["slots"]
    roles = [[label] for label, n in material["counts"].items() for _ in range(n)]
    roles += [pair for *pair, n in material["pairs"] for _ in range(n)]
    left, texts, comments = {}, set(), []

    def draw(label):  # all lines of a label are used before one is used again
        if not left.get(label):
            left[label] = dice.shuffled(material["lines"].get(label) or material["contexts"])
        return fill(left[label].pop(), slots, dice)

    for labels in dice.shuffled(roles):
        text = None
        while text is None or text in texts:
            sentences = dice.shuffled([draw(label) for label in labels])
            if dice.chance(material["context"]):
                sentences.insert(dice.between(0, 1) * len(sentences), draw("context"))
            text = styled(" ".join(sentences), dice)
        texts.add(text)
        comments.append({"text": text, "labels": labels})
    return comments


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    args = parser.parse_args()
    text = "".join(json.dumps(comment, ensure_ascii=False) + "\n" for comment in compose())
    if not args.check:
        OUTPUT.write_bytes(text.encode())
    elif not OUTPUT.exists() or OUTPUT.read_bytes() != text.encode():
        sys.exit(f"{OUTPUT.name} differs from what {Path(__file__).name} writes")


if __name__ == "__main__":
    main()
