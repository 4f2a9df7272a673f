"""The table of what the long tests found: one row a part, from the run that did it last."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from support.tally import KINDS, SHARE, Tally

HEAD = ("part", "tried", *KINDS, "seconds", "share", "beside")
"""Columns of the table."""


def describe_tallies(tallies: Sequence[Tally]) -> list[list[str]]:
    """Rows of the table."""
    return [
        [
            tally.part,
            f"{tally.tried:,}",
            *(f"{tally.counts[kind]:,}" for kind in KINDS),
            f"{tally.seconds:,.0f}",
            f"{SHARE:g}",
            tally.note,
        ]
        for tally in tallies
    ]


def update_report(path: Path, tallies: Sequence[Tally]) -> None:
    """Write rows into a report's table, in the place of those of the same parts."""
    before, _, rest = path.read_text("utf-8").partition("| part |")
    table, _, after = rest.partition("\n\n")
    found = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    rows = {row[0]: row for row in found} | {row[0]: row for row in describe_tallies(tallies)}
    lines = [list(HEAD), ["---"] * len(HEAD), *rows.values()]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    path.write_text(f"{before}{text}\n\n{after}", "utf-8")


def describe_machine() -> str:
    """What the figures were measured on."""
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
