"""Run a compiled kernel in a thread, so that it can be interrupted and shows its progress."""

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotDone
from threading import Thread
from typing import Any

import numpy as np

# Seconds until progress is shown, and between two looks at the kernel.
SILENT = 2.0
INTERVAL = 0.2


def run_in_background(function: Callable[[], Any], control: np.ndarray, description: str) -> Any:
    """Return `function()`, called in a thread of its own.

    Compiled code does not react to Ctrl-C. But the main thread does, while it waits for the other
    one: it then sets `control[0]`, at which the kernel returns.

    Parameters
    ----------
    function : callable
        It calls kernels that release the global interpreter lock.
    control : int64 array (2,), changed
        The kernels return soon after `control[0]` is not 0, and count their steps in `control[1]`.
    description : str
        Text of the progress bar, which appears after two seconds if stderr is a terminal.
    """
    future: Future = Future()

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # raised again in the main thread
            future.set_exception(error)

    # A daemon, because a program that is interrupted while numba compiles should not wait for that.
    thread = Thread(target=call, daemon=True)
    try:
        thread.start()
        try:
            return future.result(SILENT)
        except NotDone:
            if future.done():  # just now, or by a TimeoutError of the function itself
                return future.result()
        from tqdm import tqdm

        # None: shown only on a terminal.
        with tqdm(desc=description, unit=" moves", disable=None, leave=False) as bar:
            while not future.done():
                try:
                    future.result(INTERVAL)
                except NotDone:
                    bar.n = int(control[1])
                    bar.refresh()
        return future.result()
    except BaseException:
        control[0] = 1
        raise
