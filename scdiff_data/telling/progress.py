"""How far work is: bars on a terminal and in notebooks, elsewhere a line every 30 seconds.

Bars stand below each other, and messages of the log above them. A stage of less than two seconds
leaves no bar behind; the others stay, as a record of what took the time.
"""

import os
import sys
from contextlib import ExitStack, suppress
from datetime import timedelta
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from scdiff_data.telling.compiling_notice import announce_compiling

SECONDS_BETWEEN_LINES = 30.0
"""Between two lines where there is no terminal."""

_SECONDS_BETWEEN_LOOKS = 0.25
"""Between two times that a bar is drawn."""

_SECONDS_OF_A_RECORD = 2.0
"""Bars that took less leave no trace."""

_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK")
"""Variables of the environment by which launchers tell a process which of many it is."""


def is_first_rank() -> bool:
    """Whether this process is the one of many that speaks."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def tell(text: str) -> None:
    """Write a line to stderr, above the bars if there are any; work goes on if nobody listens."""
    if is_first_rank() and sys.stderr is not None:
        with suppress(OSError):
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()


class Progress:
    """How far a stage is, shown while it is entered.

    Parameters
    ----------
    stage
        What is done, in a word.
    unit
        What is counted, as in `5 cells`; `B` for bytes; nothing, where there is but a clock.
    total
        How many there will be; None where it is not known.
    patience
        Seconds after which a bar is shown; a stage that is done by then has none.
    """

    def __init__(
        self,
        stage: str,
        unit: str = "",
        total: int | None = None,
        *,
        patience: float = _SECONDS_BETWEEN_LOOKS,
    ) -> None:
        self.n_done = 0
        self._stage, self._unit, self._total, self._note = stage, unit, total, ""
        self._patience = patience
        self._n_before = 0
        self._lock, self._is_over = Lock(), Event()
        self._bar: Any = None
        self._painter: Thread | None = None

    def __enter__(self) -> "Progress":
        self._start = monotonic()
        if is_first_rank():
            if "numba" in sys.modules:  # loading it takes half a second
                announce_compiling(tell)
            paint = self._draw_bar if has_screen() else self._tell_lines
            self._painter = Thread(target=paint, name="progress", daemon=True)
            self._painter.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        if self._painter is not None:
            self._painter.join()

    def add(self, n: int = 1) -> None:
        """So many more are done; may be called from any thread."""
        with self._lock:
            self.n_done += n

    def skip(self, n: int) -> None:
        """So many were done before: they count, but not for the rate."""
        with self._lock:
            self.n_done += n
            self._n_before += n

    def expect(self, total: int) -> None:
        """So many there will be, as far as is known now."""
        self._total = total

    def note(self, text: str) -> None:
        """What else is to be told, until the next note."""
        self._note = text

    def __str__(self) -> str:
        return ", ".join(part for part in (self._describe_count(), self._describe_time()) if part)

    def _describe_count(self) -> str:
        """How many are done, and of how many."""
        if not self._unit:
            return ""
        total, done = self._total, self._number(self.n_done)
        of_all = f" of {self._number(total)}" if total else ""
        return f"{done}{of_all}" if self._unit == "B" else f"{done}{of_all} {self._unit}"

    def _describe_time(self) -> str:
        """How long it took, the rate, the time left, and the note."""
        seconds = monotonic() - self._start
        n_now, left = self.n_done - self._n_before, (self._total or 0) - self.n_done
        parts = [_clock(seconds)]
        if n_now and seconds:
            rate = n_now / seconds
            parts.append(f"{self._number(rate)}{'' if self._unit == 'B' else ' ' + self._unit}/s")
            if left > 0:
                parts.append(f"{_clock(left / rate)} left")
        return ", ".join([*parts, self._note] if self._note else parts)

    def _number(self, n: float) -> str:
        if self._unit == "B":
            return f"{n:.0f}B" if n < 1000 else f"{tqdm.format_sizeof(n)}B"
        return f"{n:,.0f}" if n >= 10 or n == int(n) else f"{n:.2g}"

    def _tell_lines(self) -> None:
        while not self._is_over.wait(SECONDS_BETWEEN_LINES):
            tell(f"{self._stage}: {self}")

    def _draw_bar(self) -> None:
        with ExitStack() as shown:
            seconds = self._patience
            while not self._is_over.wait(seconds):
                seconds = _SECONDS_BETWEEN_LOOKS
                if self._bar is None:
                    shown.enter_context(_LOG_ABOVE_BARS)
                    self._bar = tqdm(
                        desc=f"{self._stage:<9} …",
                        bar_format="{desc}",
                        total=self._total,
                        dynamic_ncols=True,
                        file=sys.stderr,
                    )
                self._draw()
            if self._bar is not None:
                self._bar.leave = monotonic() - self._start >= _SECONDS_OF_A_RECORD
                self._draw()
                self._bar.close()

    def _draw(self) -> None:
        bar, total = self._bar, self._total
        bar.n, bar.total = min(self.n_done, total or self.n_done), total or None
        shown = self._describe_count() if total else str(self)
        width = ":10" if self._note else ""  # a note takes the room
        bar.bar_format = f"{{desc}} |{{bar{width}}}|{{percentage:3.0f}} %{{postfix}}"
        if not total:
            bar.bar_format = "{desc}"
        bar.set_description_str(f"{self._stage:<9} {shown}", refresh=False)
        bar.set_postfix_str(self._describe_time(), refresh=False)
        if total and hasattr(bar, "container"):  # a notebook's
            bar.container.children[1].max = total
        bar.refresh()


class _LogAboveBars:
    """While any bar is shown, what is logged to the console is written above the bars."""

    def __init__(self) -> None:
        self._n_bars, self._lock, self._redirected = 0, Lock(), ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._n_bars += 1
            if self._n_bars == 1:
                self._redirected.enter_context(logging_redirect_tqdm())

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._n_bars -= 1
            if not self._n_bars:
                self._redirected.close()


_LOG_ABOVE_BARS = _LogAboveBars()
"""All bars of this process share the console."""


def has_screen() -> bool:
    """Whether bars can be drawn: on a terminal, or in a notebook."""
    is_notebook = any(kind.__name__ == "tqdm_notebook" for kind in tqdm.__mro__)
    return is_notebook or (sys.stderr is not None and sys.stderr.isatty())


def _clock(seconds: float) -> str:
    """Hours, minutes and seconds, as 1:02:03."""
    text = str(timedelta(seconds=round(seconds)))
    return text.removeprefix("0:").removeprefix("0") if text.startswith("0:") else text
