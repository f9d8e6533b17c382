"""What a person at the keyboard sees and does: a bar that moves, and Ctrl-C that loses nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from tqdm.auto import tqdm


def shows_progress(asked: bool | None = None) -> bool:
    """Whether to show a bar: as asked for, else in a terminal and in JupyterLab, where somebody watches."""
    watched = sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ  # Jupyter's servers set it, papermill not
    return watched if asked is None else asked


def progress_bar(steps: range, progress: bool | None) -> tqdm:
    """A bar with loss, tokens per second and the time left."""
    disable = not shows_progress(progress)
    return tqdm(steps, disable=disable, unit="step", initial=steps.start, total=steps.stop, dynamic_ncols=True)


class Flag(list[int]):
    """True once a signal has been noted."""


@contextlib.contextmanager
def interrupts() -> Iterator[Flag]:
    """Note the first Ctrl-C, so that the step ends whole; a second one is raised at once."""
    flag = Flag()
    try:
        previous = signal.getsignal(signal.SIGINT)

        def note(number: int, frame: Any) -> None:
            signal.signal(signal.SIGINT, previous)
            flag.append(number)

        signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: signals are not ours to handle
        yield flag
        return
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)
