"""What goes on beside a person who labels: an estimate of the F1, and the next batch of texts."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from threading import Event, Thread
from typing import TYPE_CHECKING

from shared.cli.errors import UserError
from shared.cli.files import ROOT
from shared.data.columns import LABELLED
from shared.methods import words_estimate

if TYPE_CHECKING:
    from shared.data.texts_to_label import TextToLabel
    from shared.serving.annotation_queue import Queue

SECONDS = 1.0  # between two looks
LEAST_TEXTS = 20  # labelled, for an estimate
_STEP = 5  # labelled texts more or fewer, or a tenth, until the F1 is estimated anew


class Background:
    """A thread that looks at the labels and at the file of texts once a second.

    Parameters
    ----------
    queue : Queue
    label_names : sequence of str
    single_label : bool
    load_if_changed : callable
        Returns the texts if their file has changed since the last call, else None.

    Attributes
    ----------
    estimate : WordsEstimate, optional
        None: there are too few labels.
    warning : str, optional
        Why the changed file cannot be read; the texts are then the old ones.
    """

    def __init__(
        self,
        queue: Queue,
        label_names: Sequence[str],
        *,
        single_label: bool,
        load_if_changed: Callable[[], Sequence[TextToLabel] | None],
    ) -> None:
        self._queue, self._label_names = queue, list(label_names)
        self._single_label, self._load = single_label, load_if_changed
        self._ended, self._estimated_at = Event(), 0
        self._thread = Thread(target=self._run, name="annotation", daemon=True)
        self._process: subprocess.Popen | None = None
        self.estimate: words_estimate.WordsEstimate | None = None
        self.warning: str | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and the process that estimates, if there is one."""
        self._ended.set()
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.look()
            except Exception as error:  # a fault must not end the thread
                traceback.print_exc()
                self.warning = f"the next texts or the F1 failed: {type(error).__name__}: {error}"
            self._ended.wait(SECONDS)

    def look(self) -> None:
        """Read the file of texts if it has changed; estimate the F1 if enough labels are new."""
        try:
            texts = self._load()
            if texts is not None:
                self._queue.replace(texts)
                self.warning = None
        except UserError as error:
            self.warning = str(error)
        self._estimate()

    def _estimate(self) -> None:
        """Estimate the F1 in another process: in this one, clicks would wait for it."""
        labelled = [a for a in self._queue.log.annotations() if a.status == LABELLED]
        change = abs(len(labelled) - self._estimated_at)
        if len(labelled) < LEAST_TEXTS or change < max(_STEP, self._estimated_at // 10):
            return
        self._estimated_at = len(labelled)
        if self._single_label:  # not those without a label, of days when there could be several
            labelled = [annotation for annotation in labelled if len(annotation.labels) == 1]
        request = {
            "texts": [annotation.text for annotation in labelled],
            "labels": [[name in a.labels for name in self._label_names] for a in labelled],
            "single_label": self._single_label,
        }
        with subprocess.Popen(
            [sys.executable, "-m", words_estimate.__name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process
        ) as self._process:
            if self._ended.is_set():  # since before there was a process to kill
                self._process.kill()
            answer, _ = self._process.communicate(json.dumps(request).encode())
        if self._process.returncode == 0:
            values = json.loads(answer)
            self.estimate = values and words_estimate.WordsEstimate(**values)
