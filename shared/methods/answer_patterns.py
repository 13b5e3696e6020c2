"""Answers by patterns, without a model: the baseline of question answering.

The sentence that shares the most telling words with the question is taken, and of it the piece that
has the form that the question asks for: a number, a date, a name, or else the longest run of words
that the question does not have.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.data.questions import Question
    from shared.data.template_questions import TemplateLine


_WORD = re.compile(r"\w+")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?!\s|$)[^.!?\n]*)*[.!?]?")
_STOP_WORDS = {
    *("a", "an", "and", "are", "as", "at", "be", "by", "did", "do", "does", "for", "from", "had"),
    *("has", "have", "how", "in", "is", "it", "its", "many", "much", "of", "on", "or", "that"),
    *("the", "their", "there", "they", "this", "to", "was", "were", "what", "when", "where"),
    *("which", "who", "whom", "whose", "why", "will", "with"),
}
_NUMBER = r"[$€£]?\d[\d.,]*\d|[$€£]?\d"
_YEAR = r"\b1\d{3}\b|\b20\d{2}\b"
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
)
_DATE = rf"(?:\d{{1,2}} )?{_MONTH}(?: \d{{1,2}}\b)?(?:,? \d{{4}})?|{_YEAR}"
_NAME = (
    rf"(?!{_MONTH}\b)[A-Z][\w'\u2019-]*(?:(?: (?:of|the|de|von|van|da|and))? [A-Z][\w'\u2019-]*)*"
)
_PLAIN = rf"(?:{_NUMBER})(?: (?:million|billion|thousand|percent))?%?"
# The beginning of a question, or a piece of it, and the form of the answer.
_FORMS = (
    (r"\bhow (?:many|much|old|long|far|large|big|tall|high)\b|\bpercent", _PLAIN),
    (r"\bwhen\b|\b(?:what|which) (?:year|date|day|month|century)\b", _DATE),
    (r"\bwho(?:m|se)?\b|\bwhere\b", _NAME),
    (r"\b(?:what|which)\b.*\b(?:name|city|country|state|person|team|company)\b", _NAME),
)


def pattern_answer(question: Question, *, frequencies: Counter[str], n_contexts: int) -> str:
    """Return the answer that patterns find.

    Parameters
    ----------
    question : Question
    frequencies : Counter
        In how many contexts of the training set each word, in lower case, occurs.
    n_contexts : int
        Number of these contexts.
    """
    asked = {w for w in _WORD.findall(question.text.lower()) if w not in _STOP_WORDS}

    def weight(word: str) -> float:
        return math.log((n_contexts + 1) / (frequencies[word] + 1))

    sentences = [match.group() for match in _SENTENCE.finditer(question.context)]
    if not sentences:
        return question.context.strip()
    overlaps = [
        sum(weight(word) for word in asked & set(_WORD.findall(sentence.lower())))
        for sentence in sentences
    ]
    best = sentences[overlaps.index(max(overlaps))]
    for wanted, form in _FORMS:
        if re.search(wanted, question.text, re.IGNORECASE):
            for match in re.finditer(form, best):
                if not set(_WORD.findall(match.group().lower())) <= asked | _STOP_WORDS:
                    return match.group()
    return _new_words(best, asked)


def baseline_answers(
    train: Sequence[Question],
    test: Sequence[Question],
    template: Sequence[TemplateLine] | None = None,
) -> dict[str, list[str]]:
    """Return the answers that patterns find, by the name of the baseline.

    Parameters
    ----------
    train : sequence of Question
        Their contexts say how frequent each word is.
    test : sequence of Question
    template : sequence of TemplateLine, optional
        The lines that the questions are about: the baselines are then the line as the template
        prints it, and the pattern of the line.
    """
    if template is not None:
        return {
            "template line": template_answers(test, template, strict=True),
            "pattern": template_answers(test, template, strict=False),
        }
    contexts = list(dict.fromkeys(question.context for question in train))
    counts = context_frequencies(contexts)
    return {
        "patterns": [
            pattern_answer(question, frequencies=counts, n_contexts=len(contexts))
            for question in test
        ]
    }


def context_frequencies(contexts: Sequence[str]) -> Counter[str]:
    """Return in how many contexts each word occurs, in lower case."""
    counts: Counter[str] = Counter()
    for context in contexts:
        counts.update(set(_WORD.findall(context.lower())))
    return counts


def _new_words(sentence: str, asked: set[str]) -> str:
    """Return the longest piece of a sentence between words of the question and commas."""
    pieces, start = [], None
    end = 0
    for match in _WORD.finditer(sentence):
        between = sentence[end : match.start()]
        if match.group().lower() in asked or (start is not None and re.search(r"[,;:()]", between)):
            if start is not None:
                pieces.append(sentence[start:end])
            start = None
        if start is None and match.group().lower() not in asked | _STOP_WORDS:
            start = match.start()
        end = match.end()
    if start is not None:
        pieces.append(sentence[start:end])
    return max(pieces, key=len, default=sentence).strip()


def template_answers(
    questions: Sequence[Question], template: Sequence[TemplateLine], *, strict: bool
) -> list[str]:
    """Return what the patterns of a template find; "" where they find nothing.

    Parameters
    ----------
    questions : sequence of Question
        The words of a question say which line it is about.
    template : sequence of TemplateLine
    strict : bool
        Search the line as the template prints it; else the pattern of the line.
    """
    line_of = {wording: line for line in template for wording in line.questions}
    answers = []
    for question in questions:
        line = line_of.get(question.text)
        search = line and (line.search if strict else line.search_pattern)
        match = search(question.context) if search else None
        answers.append(match[1] if match else "")
    return answers
