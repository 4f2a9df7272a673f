"""One process at a time writes in a data directory, on file systems of any kind."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from scdiff_data import Manifest
from scdiff_data.store.layout import DataDirectory
from scdiff_data.store.locking import is_being_prepared, locked

HOLD = """
import errno, sys, time
from pathlib import Path
from unittest.mock import patch
from scdiff_data.store.layout import DataDirectory
from scdiff_data.store.locking import locked
refuse = patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "No locks available"))
if sys.argv[2] == "file":
    refuse.start()
with locked(DataDirectory(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.readline()
"""


def hold(data_dir: Path, how: str) -> "subprocess.Popen[str]":
    """A process that holds the lock until it is killed or told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(data_dir), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("how", ["system", "file"])
def test_a_reader_beside_a_running_prepare_is_told_so(tmp_path: Path, how: str) -> None:
    with hold(tmp_path, how) as process:
        assert is_being_prepared(DataDirectory(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"another process prepares .*: wait for it"):
            Manifest.read(tmp_path)
        process.communicate("\n")
    assert not is_being_prepared(DataDirectory(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        Manifest.read(tmp_path)


def test_who_holds_the_lock_is_no_other_process(tmp_path: Path) -> None:
    with locked(DataDirectory(tmp_path)):
        assert not is_being_prepared(DataDirectory(tmp_path))


def test_a_file_stands_for_the_lock_where_the_system_keeps_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = DataDirectory(tmp_path)
    refuse = patch("fcntl.flock", side_effect=OSError(errno.ENOLCK, "No locks available"))
    with refuse, locked(directory):
        assert directory.lock_file.exists()
    assert not directory.lock_file.exists()
    with hold(tmp_path, "file") as process:
        process.kill()
        process.wait()
        assert directory.lock_file.exists()  # what a kill leaves behind on the same machine is seen
        with refuse, locked(directory):
            assert directory.lock_file.read_text().split()[0] == str(os.getpid())
    assert not caplog.records or "delete" in caplog.text
