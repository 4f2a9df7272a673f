"""Loops compile where nothing can be kept, too."""

import subprocess
import sys
from pathlib import Path

import pytest

import scdiff_data

USE = """
import numpy as np
from scdiff_data.archive.transpose import sort_rows
starts, genes = np.array([0, 3]), np.array([4, 2, 4], np.int32)
n_merged, _ = sort_rows(starts, genes, np.array([1, 2, 3], np.int16))
print(n_merged.tolist(), genes[:2].tolist())
"""


def test_a_read_only_installation_without_a_home_works_and_says_how_to_be_quick() -> None:
    package = Path(scdiff_data.__file__).parent
    script = (
        f"mount --bind {package} {package} && mount -o remount,ro,bind {package} && cd / && "
        f"HOME=/proc PYTHONPATH={package.parent} {sys.executable} -c '{USE}'"
    )
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root can make a folder read-only for one process")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == "[2] [2, 4]\n", done.stderr
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1
