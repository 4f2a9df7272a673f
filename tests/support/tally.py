"""What the long tests count, and how much of them is done."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.isolated import Outcome

SHARE = float(os.environ.get("SCDIFF_SOAK_SHARE", "1"))
"""Of each long test the part that is done."""

KINDS = ("right", "clear", "wrong", "unclear", "crashed", "hung")
"""What may become of a try: the last four are faults."""


@dataclass
class Tally:
    """What became of the tries of one part of the long tests.

    Parameters
    ----------
    part
        What was tried, in a few words.
    """

    part: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    note: str = ""

    @property
    def tried(self) -> int:
        """Tries in all."""
        return sum(self.counts.values())

    def add(self, kind: str, what: str = "") -> None:
        """Count a try; of a fault, keep what it was."""
        self.counts[kind] += 1
        if kind not in ("right", "clear"):
            self.faults.append(f"{kind}: {what}")
            if path := os.environ.get("SCDIFF_SOAK_FAULTS"):
                with Path(path).open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"part": self.part, "kind": kind, "what": what}) + "\n")

    def check(self) -> None:
        """Raise AssertionError if there was a fault, with the first few."""
        shown = "\n".join(self.faults[:10])
        assert not self.faults, f"{self.part}: {len(self.faults)} of {self.tried}:\n{shown}"


TALLIES: list[Tally] = []
"""Of the parts that this process has done."""


@contextmanager
def tally_of(part: str) -> Iterator[Tally]:
    """Count the tries of a part; at the end raise AssertionError if there was a fault.

    A part that is interrupted is not counted: it is no share of anything.
    """
    tally, started = Tally(part), time.monotonic()
    TALLIES.append(tally)
    try:
        yield tally
    except KeyboardInterrupt:
        TALLIES.remove(tally)
        raise
    finally:
        tally.seconds = time.monotonic() - started
    tally.check()


def choose(numbers: Sequence[int], purpose: str) -> list[int]:
    """The share of some numbers that is to be tried: the same ones each time, and one at least."""
    n = max(1, round(SHARE * len(numbers)))

    def draw(number: int) -> bytes:
        return hashlib.sha256(f"{purpose} {number}".encode()).digest()

    return sorted(sorted(numbers, key=draw)[:n])


def describe(outcome: Outcome) -> str:
    """An outcome as one text."""
    if outcome.how == "raised":
        return f"{outcome.error[0]}: {outcome.text}\n{outcome.trace}"
    return f"{outcome.how} {outcome.signal or ''} {outcome.text}"


def is_own(outcome: Outcome, *names: str) -> bool:
    """Whether a job was refused by this package, with a text that names what is wrong.

    Parameters
    ----------
    outcome
        What became of it.
    names
        Paths or words, of which the text must have one.
    """
    if outcome.how != "raised" or not any(name in outcome.text for name in names):
        return False
    if "ScdiffDataError" in outcome.error:
        return True
    innermost = [line for line in outcome.trace.splitlines() if line.startswith("  File ")][-1:]
    # What a library says over a file of ours is not our text; Python itself names the file.
    is_ours = not any(word in line for line in innermost for word in ("-packages", ".pyx", ".pxi"))
    return is_ours and bool({"OSError", "ValueError"} & set(outcome.error))
