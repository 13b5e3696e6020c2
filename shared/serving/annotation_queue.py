"""The texts that a person labels, in their order, and which of them are still open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

from shared.data.texts_to_label import TextToLabel
from shared.serving.annotation_log import AnnotationLog, text_id


class Queue:
    """The texts to label, in their order, and which of them are still open.

    Parameters
    ----------
    texts : sequence of TextToLabel
    log : AnnotationLog
    """

    def __init__(self, texts: Sequence[TextToLabel], log: AnnotationLog) -> None:
        self.log = log
        self._texts: dict[str, TextToLabel] = {}  # also of earlier batches, which a page may show
        self.replace(texts)

    def replace(self, texts: Sequence[TextToLabel]) -> None:
        """Take other texts, such as the next batch."""
        new = {text_id(text.text): text for text in texts}
        self._texts = self._texts | new
        # One assignment: requests of other threads see the old texts or the new ones.
        self._queue = (list(new), {identity: i for i, identity in enumerate(new)})

    def __len__(self) -> int:
        return len(self._queue[0])

    def find(self, identity: str) -> tuple[TextToLabel, int | None] | None:
        """Return a text and its position (None: of an earlier batch); None for an unknown one."""
        if identity in self._texts:
            return self._texts[identity], self._queue[1].get(identity)
        annotation = self.log.get(identity)
        return None if annotation is None else (TextToLabel(annotation.text, annotation.row), None)

    def at(self, position: int) -> str | None:
        """Return the `text_id` at a position; None: there is none."""
        ids = self._queue[0]
        return ids[position] if 0 <= position < len(ids) else None

    def next_open(self, after: int = -1) -> str | None:
        """Return the first open text after a position, else the first one; None: none is open."""
        ids = self._queue[0]
        for position in chain(range(after + 1, len(ids)), range(min(after + 1, len(ids)))):
            if self.status(ids[position]) is None:
                return ids[position]
        return None

    def status(self, identity: str) -> str | None:
        """Return the status of a text: labelled, skipped or None."""
        annotation = self.log.get(identity)
        return None if annotation is None else annotation.status

    def counts(self) -> Counter[str | None]:
        """Return the number of texts of each status."""
        return Counter(map(self.status, self._queue[0]))
