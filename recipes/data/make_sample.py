"""Write ``issues.jsonl``, the sample that ships with the project, from the texts in ``material/``.

    python recipes/data/make_sample.py            # writes recipes/data/issues.jsonl
    python recipes/data/make_sample.py --check    # exit status 1 if the file there differs

Every *situation* (the subject of an issue) was written by hand with alternatives. A *voice* (the
style of the author), a *layout* (the order of the parts) and *slots* (names, numbers, versions that
fit the date) turn it into an issue. README.md describes the format of the material. The only source
of randomness is ``random.Random(int).random()``, whose values are the same on every Python.
"""

import argparse
import json
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from zlib import crc32

import yaml
from authors import Author, Dice

HERE = Path(__file__).parent
OUTPUT = HERE / "issues.jsonl"
URL = "https://example.org/tolmire/tolmire"


class Deck:
    """Draw situations evenly: all are used before one is used again."""

    def __init__(self, situations, dice):
        self.situations, self.dice, self.left = situations, dice, {}

    def draw(self, **wanted):
        key = tuple(wanted.items())
        if not self.left.get(key):
            fitting = [s for s in self.situations if wanted.items() <= s.items()]
            self.left[key] = self.dice.shuffled(fitting)
        return self.left[key].pop()


def read_material():
    """Return the contents of the YAML files, and the situations of issues and pull requests."""
    material, situations, pulls = {}, [], []
    for path in sorted((HERE / "material").glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            material[path.stem] = content
        else:
            (pulls if path.stem == "pulls" else situations).extend(content)
    for situation in [*situations, *pulls]:
        situation.setdefault("label", "other")
        situation["pair"] = frozenset([situation["label"], situation.setdefault("near")])
        situation["shared"] = situation["near"] is not None
    choices = material["slots"]["choices"]
    material["slots"]["records"] += [[{k: v} for v in values] for k, values in choices.items()]
    return material, situations, pulls


def cast(plan, situations, pulls, dice):
    """Return one role per issue: its situation, its labels, and whether it repeats another one."""
    roles, deck = [], Deck(situations, dice)
    left = Counter(plan["labels"])
    for *pair, count in plan["pairs"]:
        left.subtract(pair * count)
        for _ in range(count):
            roles.append({"situation": deck.draw(pair=frozenset(pair)), "labels": pair})
    for label, count in left.items():
        for _ in range(count):
            wanted = {"label": label, "near": None}
            x = dice.random()
            if x < plan["missed"]:  # the second label that would fit is missing
                wanted = {"label": label, "shared": True}
            elif x < plan["missed"] + plan["confused"]:  # a neighbouring topic has the label
                wanted = {"near": label}
            roles.append({"situation": deck.draw(**wanted), "labels": [label]})
    for label, count in plan["unlabelled"].items():
        for _ in range(count):
            roles.append({"situation": deck.draw(label=label), "labels": []})
    for role in dice.shuffled(roles)[: plan["near_duplicates"]]:
        role["repeats"] = "edited"
    for i in range(plan["exact_duplicates"]):
        roles.append({"repeats": "exactly", "labelled": i < plan["labelled_duplicates"]})
    deck = Deck(pulls, dice)
    for _ in range(plan["pulls"]):
        pull = deck.draw()
        labels = [pull["label"]] if pull["label"] != "other" and dice.chance(0.3) else []
        roles.append({"situation": pull, "labels": labels, "pull": True})
    return dice.shuffled(roles)


def repeat(role, issues, dice, follow):
    """Return text and labels of an earlier issue that is posted again, None if none fits."""
    earlier = [issue for issue in issues if not issue["pull"]]
    if role["repeats"] == "exactly":
        earlier = [issue for issue in earlier if bool(issue["labels"]) == role["labelled"]]
    else:
        earlier = [issue for issue in earlier if issue["labels"] == role["labels"]]
        earlier = [issue for issue in earlier if len((issue["body"] or "").split()) > 70]
    if not earlier:
        return None
    copy = dict(dice.pick(earlier))
    if role["repeats"] == "edited":
        copy["title"] += dice.pick(["", " (again)", "!", " [repost]", "?"])
        copy["body"] += "\n\n" + dice.pick(follow)
    return copy


def other_labels(role, plan, dice):
    """Return labels other than the nine: often that of the situation, sometimes a random one."""
    other = role["situation"].get("other")
    p = 0.7 if role["labels"] else plan["other_unlabelled"]
    names = [other] if other and dice.chance(p) else []
    if dice.chance(0.12 if role["labels"] else 0.03):
        names.append(dice.pick(plan["other"]))
    return names


def as_github(issue, dice, users):
    """Return one issue with the fields of GitHub's REST API that are used here."""
    names = list(dict.fromkeys(dice.shuffled(issue["labels"]) + issue["other"]))
    login = dice.pick(users["first"]) + dice.pick(["", "-", ""]) + dice.pick(users["last"])
    login += dice.pick(["", "", str(dice.between(1, 99))])
    url = f"{URL}/{'pull' if issue['pull'] else 'issues'}/{issue['number']}"
    record = {
        "number": issue["number"],
        "title": issue["title"],
        "body": issue["body"],
        "labels": [{"name": x, "color": f"{crc32(x.encode()) & 0xFFFFFF:06x}"} for x in names],
        "state": "closed" if dice.chance(0.7) else "open",
        "user": {"login": issue["login"] or login},
        "comments": dice.between(0, dice.between(0, 24)),
        "created_at": issue["when"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        "html_url": url,
    }
    if issue["pull"]:
        record["pull_request"] = {"html_url": url}
    return record


def write(role, material, seed, number, when):
    """Return a new issue in the style of its author."""
    dice, plan = Dice(seed), material["plan"]
    author = Author(role["situation"], material, dice, number, when.date())
    return {
        "title": author.title(),
        "body": None if dice.chance(plan["null_bodies"]) else author.body(),
        "labels": role["labels"],
        "other": other_labels(role, plan, dice),
        "login": author.fill(author.voice.get("login", "")),
    }


def compose():
    """Return all issues, newest first, as the API lists them."""
    material, situations, pulls = read_material()
    plan = material["plan"]
    dice = Dice(plan["seed"])
    roles = cast(plan, situations, pulls, dice)
    since, until = (datetime(d.year, d.month, d.day) for d in (plan["since"], plan["until"]))
    number, seed, issues, texts = 0, plan["seed"], [], set()
    for i, role in enumerate(roles):
        number += dice.between(1, 3)
        when = since + (until - since) / len(roles) * (i + dice.random())
        issue = repeat(role, issues, dice, plan["follow"]) if "repeats" in role else None
        while issue is None or ("repeats" not in role and (issue["title"], issue["body"]) in texts):
            seed += 1  # two short texts can be equal by chance: write this one again
            issue = write(role, material, seed, number, when)
        texts.add((issue["title"], issue["body"]))
        issues.append({**issue, "pull": "pull" in role, "number": number, "when": when})
    return [as_github(issue, dice, material["common"]["users"]) for issue in reversed(issues)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    args = parser.parse_args()
    text = "".join(json.dumps(issue, ensure_ascii=False) + "\n" for issue in compose())
    if not args.check:
        OUTPUT.write_bytes(text.encode())
    elif not OUTPUT.exists() or OUTPUT.read_bytes() != text.encode():
        sys.exit(f"{OUTPUT.name} differs from what {Path(__file__).name} writes")


if __name__ == "__main__":
    main()
