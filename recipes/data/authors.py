"""Write one issue of the sample: random draws, and an author with a style of its own."""

import re
from random import Random

MAX_WORDS = 380  # maximum length of a body, before a follow-up is added

CHOICE = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]")  # the innermost "[this|that]"
SLOT = re.compile(r"\{([A-Za-z_]+)(\d?)\}")  # "{model}"; "{model2}" is another model
PART = re.compile(r"( ?)\{([a-z]+)\}")  # a part of a layout; an empty part drops its space
VERBATIM = re.compile(r"(```[\s\S]*?```|`[^`]*`|https?://\S+|[@#]\w\S*)")  # text without style

# The level of detail of an issue: maximum number of core sentences, probability of an optional
# sentence, probability of code and of output, minimum and maximum number of additional paragraphs
# (None: no such paragraphs, and no sentence on who is asking).
BRIEF = {"weight": 0.16, "sentences": 2, "optional": 0.15, "code": 0.1, "asides": None}
USUAL = {"weight": 0.42, "sentences": 9, "optional": 0.6, "code": 0.5, "asides": (0, 2)}
LONG = {"weight": 0.36, "sentences": 9, "optional": 0.85, "code": 0.9, "asides": (0, 5)}
ENDLESS = {"weight": 0.06, "sentences": 9, "optional": 1, "code": 1, "asides": (5, 11)}
DETAIL = {"chat": [BRIEF, USUAL], "pull": [USUAL]}  # by kind of issue; other kinds use all four
KINDS = {"usage": "question", "new model": "request", "documentation": "request"}  # by label
ISSUES = ("problem", "question", "request", "chat")  # default kinds of a voice or layout


def lines(text):
    return [line for line in (text or "").splitlines() if line.strip()]


class Dice:
    """Random draws that use only ``random()``, which is the same on every Python."""

    def __init__(self, seed):
        self.random = Random(seed).random

    def chance(self, p):
        return self.random() < p

    def between(self, low, high):
        return low + int(self.random() * (high - low + 1))

    def pick(self, options):
        return options[self.between(0, len(options) - 1)]

    def weighted(self, options):
        x = self.random() * sum(option["weight"] for option in options)
        for option in options[:-1]:
            x -= option["weight"]
            if x < 0:
                return option
        return options[-1]

    def shuffled(self, options):
        return [options[i] for _, i in sorted((self.random(), i) for i in range(len(options)))]


class Author:
    """Write one issue: resolve choices, fill slots consistently, keep one style."""

    def __init__(self, situation, material, dice, number, day):
        self.situation, self.dice = situation, dice
        self.common, self.slots, self.pools = (material[x] for x in ("common", "slots", "asides"))
        self.kind = situation.get("kind", KINDS.get(situation["label"], "problem"))
        voices = self._fitting(self.common["voices"])
        if "voice" in situation:
            voices = [voice for voice in voices if voice["name"] == situation["voice"]]
        self.voice = dice.weighted(voices)
        self.detail = dice.weighted(DETAIL.get(self.kind, [BRIEF, USUAL, LONG, ENDLESS]))
        # The shuffled order of each group of records: {x} uses the first one, {x2} the second.
        self.order = {}
        self.ranges = self.slots["ranges"] | {"ref": [1, number]}
        self.values = {}
        for name, dated in sorted(self.slots["dated"].items()):
            released = [value for since, value in dated if since <= day]
            self.values[name] = dice.pick(released[-2:])
        releases = [value for _, value in self.slots["dated"]["v"]]
        index = releases.index(self.values["v"])
        self.values["vold"] = releases[max(index - dice.between(1, 2), 0)]
        self.values["vnext"] = releases[min(index + 1, len(releases) - 1)]

    def _fitting(self, options):
        return [x for x in options if self.kind in x.get("kinds", ISSUES)]

    def fill(self, text):
        while match := CHOICE.search(text):
            option = self.dice.pick(match[1].split("|"))
            text = text[: match.start()] + option + text[match.end() :]
        return SLOT.sub(self._slot, text)

    def _slot(self, match):
        name, digit = match.groups()
        if name in self.slots["fresh"]:
            return self.dice.pick(self.slots["fresh"][name])
        if name in self.ranges and name + digit not in self.values:
            self.values[name + digit] = str(self.dice.between(*self.ranges[name]))
        elif name + digit not in self.values:
            self._draw(name, digit)
        return self.values.get(name + digit, match[0])

    def _draw(self, name, digit):
        for group, records in enumerate(self.slots["records"]):
            if name in records[0]:
                if group not in self.order:
                    self.order[group] = self.dice.shuffled(records)
                for key, value in self.order[group][int(digit or 1) - 1].items():
                    self.values[key + digit] = self.fill(value)

    def prose(self, text):
        """Fill the slots of `text` and apply the style of this author."""
        pieces = VERBATIM.split(self.fill(text))
        # Even pieces are prose, odd ones are code, links and names.
        for i in range(0, len(pieces), 2):
            for style in self.voice.get("styles", []):
                for pattern, new, p in self.common["styles"][style]:
                    pieces[i] = re.sub(
                        pattern,
                        lambda m, new=new, p=p: m.expand(new) if self.dice.chance(p) else m[0],
                        pieces[i],
                    )
            if self.voice.get("lower"):
                pieces[i] = pieces[i].lower()
        return "".join(pieces)

    def _maybe(self, options, p):
        return self.prose(self.dice.pick(options)) if options and self.dice.chance(p) else ""

    def title(self):
        vague = self.kind in KINDS.values() and self.dice.chance(0.05)
        title = self.dice.pick(self.common["vague"] if vague else lines(self.situation["title"]))
        if self.dice.chance(0.12):
            title = self.dice.pick(self.common["prefix"][self.kind]) + title
        title = self.prose(title)
        return title[0].upper() + title[1:] if self.dice.chance(0.35) else title

    def body(self):
        who, *asides = self._asides()
        parts = {
            "core": self._core(),
            "ask": self._maybe(lines(self.situation.get("ask")), 0.8),
            "open": self._maybe(self.voice["open"], 0.6),
            "close": self._maybe(self.voice["close"], 0.55),
            "background": who,
            "extra": self._join(asides, self.dice.pick(["\n\n", " "])),
            "code": self._code(),
            "error": self._error(),
            "env": self.fill(self.dice.pick(self.common["env"])).strip(),
        }
        brief = self.detail is BRIEF
        layouts = [
            x for x in self._fitting(self.common["layouts"]) if x.get("brief", False) == brief
        ]
        paragraphs = self._lay_out(self.dice.weighted(layouts)["text"], parts)
        while sum(len(p.split()) for p in paragraphs) > MAX_WORDS:
            del paragraphs[-2]
        if self.dice.chance(0.06):
            paragraphs.append(self.prose(self.dice.pick(self.common["follow"])))
        return "\n\n".join(paragraphs)

    def _core(self):
        optional = self.detail["optional"] / (3 if self.voice.get("short") else 1)
        core = [
            self.prose(line.removeprefix("? "))
            for line in lines(self.situation["core"])
            if not line.startswith("? ") or self.dice.chance(optional)
        ]
        core = self._join(core[: self.detail["sentences"]], "\n" if self.dice.chance(0.15) else " ")
        more = [x for x in lines(self.situation.get("more")) if self.dice.chance(optional)]
        if not more or self.detail is BRIEF:
            return core
        return core + self.dice.pick(["\n\n", " "]) + self.prose(self._join(more, " "))

    @staticmethod
    def _join(paragraphs, glue):
        """Join with `glue`, or line by line if a paragraph is a list, a table or code."""
        is_block = any(x.startswith(("- ", "|", "**", "```")) for x in paragraphs)
        return ("\n" if is_block else glue).join(paragraphs)

    def _asides(self):
        """Return additional paragraphs; the first one says who is asking."""
        if self.kind == "chat" or not self.detail["asides"]:
            return [""]
        pool = self.pools[self.kind] * 2
        if self.kind != "pull":
            area = "model" if self.situation["label"] == "new model" else None
            area = self.situation.get("area", area)
            pool = pool + self.pools["remark"] + self.pools["areas"].get(area, []) * 3
        pool = list(dict.fromkeys(self.dice.shuffled(pool)))
        count = self.dice.between(*self.detail["asides"])
        return [self.prose(x) for x in [self.dice.pick(self.pools["who"]), *pool[:count]]]

    def _code(self):
        code = self.situation.get("code")
        if code is None and self.detail in (LONG, ENDLESS) and self.dice.chance(0.6):
            snippets = self.common["snippets"].get(self.situation.get("area"))
            code = snippets and self.dice.pick(snippets)
        if not code or not self.dice.chance(self.detail["code"]):
            return ""
        return self._fence(self.fill(code), ["```python", "```py", "```", "```Python"])

    def _fence(self, text, fences=("```",)):
        fence = self.dice.pick([*fences, *fences, "    ", ""])
        if fence.startswith("```"):
            return f"{fence}\n{text.rstrip()}\n```"
        return "\n".join(fence + line for line in text.rstrip().splitlines())

    def _error(self):
        if not self.dice.chance(self.detail["code"]):
            return ""
        if "log" in self.situation:
            return self._fence(self.fill(self.situation["log"]))
        if "error" not in self.situation:
            return ""
        error = self.fill(self.dice.pick(lines(self.situation["error"])))
        if "area" in self.situation and self.dice.chance(0.6):
            return self._fence("\n".join([*self._traceback(self.situation["area"]), error]))
        return f"`{error}`" if self.dice.chance(0.5) else self._fence(error)

    def _traceback(self, area):
        folder = self.dice.pick(self.common["paths"])
        script, call = self.dice.pick(self.common["entry"])
        frames = self.common["frames"][area][: self.dice.between(1, 5)]
        frames = [[f"{folder}/{file}", function, code] for file, function, code in frames]
        yield "Traceback (most recent call last):"
        for file, function, code in [[script, "<module>", call], *frames]:
            line = self.dice.between(7, 900)
            yield self.fill(f'  File "{file}", line {line}, in {function}\n    {code}')

    def _lay_out(self, layout, parts):
        paragraphs = []
        for paragraph in layout.strip().split("\n\n"):
            present = [bool(parts[name]) for _, name in PART.findall(paragraph) if name in parts]
            if not present:
                paragraphs.append(self.fill(paragraph))
            elif any(present):
                text = PART.sub(lambda m: parts[m[2]] and m[1] + parts[m[2]], paragraph)
                paragraphs.append(text.strip())
            elif paragraph.startswith("#") and self.dice.chance(0.4):
                paragraphs.append(paragraph.splitlines()[0] + "\n_No response_")
        return paragraphs
