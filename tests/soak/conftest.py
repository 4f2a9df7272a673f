"""What the long tests counted: in a report after each of them, and on the screen at the end."""

import os
from pathlib import Path

import pytest

from support.reliability import HEAD, describe_machine, describe_tallies, update_report
from support.tally import TALLIES


def pytest_runtest_teardown() -> None:
    if TALLIES and (path := os.environ.get("SCDIFF_SOAK_REPORT")):
        update_report(Path(path), TALLIES)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLIES:
        terminalreporter.write_line(f"on {describe_machine()}:")
        for row in (list(HEAD), *describe_tallies(TALLIES)):
            terminalreporter.write_line(" | ".join(row))
