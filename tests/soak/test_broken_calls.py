"""Each call that changes a file is broken once: by a kill, and by each error that disks raise."""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from scdiff_data.base import digest
from support import file_calls
from support.cases import digest_tree
from support.isolated import Isolated, Outcome
from support.tally import Tally, choose, describe, is_own, tally_of

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(file_calls.find_compiler() is None, reason="there is no C compiler, cc"),
]

RUNS = {
    "fresh": ("whole", None),
    "growing": ("whole", "small"),
    "choosing again": ("choosing", "whole"),
    "drawing": ("drawing", "whole"),
    "simulating": ("simulating", None),
}
"""Each run: what is done, and what was done in the directory before."""

ALONE = {"drawing": "/hvg_analysis.png", "simulating": "/source/"}
"""Of a run whose other calls are those of another run, what the paths of its own calls have."""


class Runs:
    """Directories as they are before and after each run, and what breaks a run on the way."""

    def __init__(self, folder: Path, isolated: Isolated) -> None:
        self._folder, self._isolated = folder, isolated
        self._counter = folder / "counter"
        where = {"folder": str(folder / "bucket")}
        (made,) = isolated.run("support.fault_jobs:make_bucket", [where])
        self._bucket = made.value
        self._ends: dict[tuple[str, str], tuple[Outcome, dict[str, str]]] = {}

    def do(self, kind: str, data_dir: Path, *, at: int, fault: str, log: bool = False) -> Outcome:
        """Do a run whose call number `at` is broken."""
        told = file_calls.tell(
            data_dir, self._counter, at=at, fault=fault, log=self._folder / "log" if log else None
        )
        arguments = {"kind": kind, "data_dir": str(data_dir), "bucket": self._bucket}
        (outcome,) = self._isolated.run("support.fault_jobs:run", [arguments], environment=told)
        return outcome

    def begin(self, name: str) -> Path:
        """A directory as it is before a run."""
        before = RUNS[name][1]
        data_dir = self._folder / "data"
        shutil.rmtree(data_dir, ignore_errors=True)
        if before is not None:
            made = self._folder / before
            if not made.exists():
                assert self.do(before, made, at=0, fault="kill").how == "returned"
            shutil.copytree(made, data_dir)
        return data_dir

    def undisturbed(self, name: str) -> tuple[dict[str, str], list[tuple[int, str]]]:
        """What a run makes that nothing breaks, and its calls: number and the rest of the line."""
        (self._folder / "log").unlink(missing_ok=True)
        data_dir = self.begin(name)
        outcome = self.do(RUNS[name][0], data_dir, at=0, fault="kill", log=True)
        assert outcome.how == "returned", describe(outcome)
        lines = (self._folder / "log").read_text().splitlines()
        calls = [(int(number), rest) for number, rest in (line.split(" ", 1) for line in lines)]
        assert len(calls) == file_calls.read_count(self._counter)
        return digest_tree(data_dir), calls

    @property
    def n_states(self) -> int:
        """States of a directory that were gone on from."""
        return len(self._ends)

    def go_on(self, kind: str, data_dir: Path) -> tuple[Outcome, dict[str, str]]:
        """What becomes of a run after a broken one, and its files; once for each state of them."""
        state = kind, _digest_state(data_dir)
        if state not in self._ends:
            again = self.do(kind, data_dir, at=0, fault="kill")
            self._ends[state] = again, digest_tree(data_dir)
        return self._ends[state]

    def break_call(
        self, name: str, call: tuple[int, str], fault: str, wanted: dict[str, str], tally: Tally
    ) -> None:
        """Break one call of a run, run again, and count what became of it."""
        kind, data_dir = RUNS[name][0], self.begin(name)
        what = f"{name}: {fault} at call {call[0]}, {call[1]}"
        first = self.do(kind, data_dir, at=call[0], fault=fault)
        after = digest_tree(data_dir) if first.how == "returned" else {}
        is_killed = first.how == "crashed" and first.signal == signal.SIGKILL
        again, found = self.go_on(kind, data_dir)
        different = sorted(p for p in found.keys() | wanted.keys() if found.get(p) != wanted.get(p))
        if first.how == "hung" or again.how == "hung":
            tally.add("hung", what)
        elif first.how == "crashed" and not (is_killed and fault == "kill"):
            tally.add("crashed", f"{what}: {describe(first)}")
        elif again.how == "crashed":
            tally.add("crashed", f"{what}: the second run: {describe(again)}")
        elif again.how == "raised":
            kind_of = "wrong" if is_own(again, str(data_dir)) else "unclear"
            tally.add(kind_of, f"{what}: the second run: {describe(again)}")
        elif different:
            tally.add("wrong", f"{what}: after the second run these differ: {different}")
        elif first.how == "returned" and after != wanted:
            tally.add("wrong", f"{what}: the first run says that all is well, and files differ")
        elif first.how == "returned" or is_killed:
            tally.add("right")
        elif is_own(first, str(data_dir)):
            tally.add("clear")
        else:
            tally.add("unclear", f"{what}: {describe(first)}")


def _digest_state(folder: Path) -> str:
    """All that is in a folder, whole or not: names, modes and bytes."""
    paths = sorted(folder.rglob("*"))
    modes = [(str(path.relative_to(folder)), path.lstat().st_mode) for path in paths]
    return digest([modes, digest_tree(folder) if folder.is_dir() else None])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("broken").resolve()
    library = file_calls.compile_library(folder)
    with Isolated("support.fault_jobs", preload=library) as isolated:
        yield Runs(folder, isolated)


@pytest.mark.parametrize("fault", list(file_calls.FAULTS))
@pytest.mark.parametrize("name", list(RUNS))
def test_a_run_broken_at_any_call_says_so_and_the_next_makes_the_same_files(
    runs: Runs, name: str, fault: str
) -> None:
    wanted, calls = runs.undisturbed(name)
    known = {number: rest for number, rest in calls if ALONE.get(name, "") in rest}
    before = runs.n_states
    with tally_of(f"{name}, {fault} at each call") as tally:
        for number in choose(list(known), f"{name} {fault}"):
            runs.break_call(name, (number, known[number]), fault, wanted, tally)
        tally.note = f"{runs.n_states - before} new states"
