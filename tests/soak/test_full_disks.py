"""Real disks that are too small, by a little or by much: they are enlarged, and the run goes on."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.cases import digest_tree
from support.isolated import Isolated
from support.tally import choose, describe, is_own, tally_of

pytestmark = pytest.mark.soak

STEP = 8 << 10
"""Bytes between two sizes of disks."""

JOB = "support.fault_jobs:run"


@contextmanager
def disk_of(folder: Path, n_bytes: int) -> Iterator[None]:
    """A file system of its own of so many bytes; only root can mount one."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={n_bytes}", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no tmpfs can be mounted: {error}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_is_full_says_so_and_once_larger_holds_the_same_files(tmp_path: Path) -> None:
    disk, whole = tmp_path / "disk", tmp_path / "whole"
    with Isolated("support.fault_jobs") as isolated, tally_of("disks that are too small") as tally:
        (made,) = isolated.run(JOB, [{"kind": "whole", "data_dir": str(whole)}])
        assert made.how == "returned", describe(made)
        wanted = digest_tree(whole)
        most = 2 * sum(path.stat().st_size + 4096 for path in whole.rglob("*"))
        for n_bytes in choose(range(STEP, most, STEP), "disks"):
            what = f"a disk of {n_bytes} bytes"
            # The room that the plan asks for is never there: the disk fills up on the way.
            arguments = {"kind": "unplanned", "data_dir": str(disk / "data")}
            with disk_of(disk, n_bytes):
                (first,) = isolated.run(JOB, [arguments])
                after = digest_tree(disk / "data") if (disk / "data").is_dir() else {}
                larger = ["mount", "-o", "remount,size=64m", str(disk)]
                subprocess.run(larger, check=True)
                (again,) = isolated.run(JOB, [arguments])
                found = digest_tree(disk / "data")
            if first.how in ("crashed", "hung"):
                tally.add(first.how, f"{what}: {describe(first)}")
            elif again.how != "returned" or found != wanted:
                names = [name for name in wanted if found.get(name) != wanted[name]]
                tally.add("wrong", f"{what}: then {describe(again)}, {names} differ")
            elif first.how == "returned":
                tally.add("right" if after == wanted else "wrong", what)
            elif is_own(first, str(disk)):
                tally.add("clear")
            else:
                tally.add("unclear", f"{what}: {describe(first)}")
