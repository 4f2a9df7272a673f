"""What is seen of long work: on a terminal, without one, and on many ranks."""

import io
import logging
import re
import sys
import time
from types import SimpleNamespace

import numba.core.event
import pytest

from scdiff_data.telling import Progress, progress, tell


class Screen(io.StringIO):
    """A terminal of 100 columns that keeps what is written."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What was drawn, a bar or a message at a time, without moves of the cursor."""
        drawn = re.split(r"[\r\n]+", re.sub(r"\x1b\[\d*[A-Z]", "\n", self.getvalue()))
        return [line.rstrip() for line in drawn if line.strip()]


def open_screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """Take stderr for a terminal: in the test, since pytest sets it anew after fixtures."""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LOOKS", 0.01)
    return screen


def wait_for(screen: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in screen.getvalue():
        assert time.monotonic() < deadline, screen.getvalue()
        time.sleep(0.01)


def test_a_line_has_what_is_done_the_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    with Progress("archive", "cells", 12_000) as cells, Progress("download", "B") as n_bytes:
        now = 110.0
        cells.skip(2_000)  # of an earlier run
        cells.add(1_000)
        n_bytes.add(3_500_000_000)
        assert str(cells) == "3,000 of 12,000 cells, 0:10, 100 cells/s, 1:30 left"
        assert str(n_bytes) == "3.50GB, 0:10, 350MB/s"
        now = 3_700.0
        cells.note("the last experiment")
        cells.add(9_000)
        assert str(cells) == "12,000 of 12,000 cells, 1:00:00, 2.8 cells/s, the last experiment"
        with Progress("catalog") as catalog:
            assert str(catalog) == "0:00"


def test_without_a_terminal_there_is_a_line_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert progress.SECONDS_BETWEEN_LINES == 30
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.05)
    with Progress("shards", "cells", 200) as cells:
        cells.add(50)
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("shards: 50 of 200 cells, 0:0") for line in lines)
    assert all(line.endswith("left") for line in lines)


def test_a_short_stage_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = open_screen(monkeypatch)
    with Progress("archive", "cells", 3, patience=60) as cells:
        cells.add(3)
    assert screen.getvalue() == ""


def test_bars_and_messages_leave_each_other_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = open_screen(monkeypatch)
    logger = logging.getLogger("a module")
    handler = logging.StreamHandler(screen)
    logging.root.addHandler(handler)
    try:
        with Progress("download", "B", 10**6) as n_bytes, Progress("archive", "cells", 80) as cells:
            wait_for(screen, "archive")
            wait_for(screen, "download")
            n_bytes.add(500_000)
            cells.add(40)
            logger.warning("a warning, as it was written")
            tell("a line, as it was written")
            wait_for(screen, "50 %")
    finally:
        logging.root.removeHandler(handler)
    shown = screen.lines()
    for message in ("a warning, as it was written", "a line, as it was written"):
        assert shown.count(message) == 1
        shown.remove(message)
    forms = (r"download  (…|\d+\.?\d*k?B of 1\.00MB \|.*)", r"archive   (…|\d+ of 80 cells \|.*)")
    assert {line for line in shown if not re.fullmatch("|".join(forms), line)} == set()
    assert logging.root.handlers.count(handler) == 0


def test_a_total_may_be_found_out_on_the_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = open_screen(monkeypatch)
    with Progress("download", "files") as files:
        wait_for(screen, "download  0 files, 0:00")
        files.expect(8)
        wait_for(screen, "0 of 8 files")


def test_of_many_ranks_the_first_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.01)
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        with monkeypatch.context() as patched:
            patched.setenv(name, "1")
            tell("nothing")
            with Progress("archive", "cells", 3):
                time.sleep(0.05)
    assert capsys.readouterr().err == ""


def test_compiling_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("archive"):
        for module in ("another.package", "scdiff_data.shards.loops", "scdiff_data.genes.sums"):
            function = SimpleNamespace(py_func=SimpleNamespace(__module__=module))
            with numba.core.event.trigger_event("numba:compile", data={"dispatcher": function}):
                pass
    assert capsys.readouterr().err.count("compiling loops, once for this installation") <= 1


class Gone(io.StringIO):
    """A pipe whose reader has ended."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stderr", [None, Gone()], ids=["closed", "without a reader"])
def test_work_goes_on_where_nobody_listens(
    monkeypatch: pytest.MonkeyPatch, stderr: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.01)
    tell("something")
    with Progress("archive", "cells"):
        time.sleep(0.05)
    assert not progress.has_screen()
