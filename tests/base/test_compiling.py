"""Loops compile where nothing can be kept, and for other processors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import scdiff_data

USE = """
import numpy as np
from scdiff_data.archive.transpose import sort_rows
starts, genes = np.array([0, 3]), np.array([4, 2, 4], np.int32)
n_merged, *_ = sort_rows(starts, genes, np.array([1, 2, 3], np.int16))
print(n_merged.tolist(), genes[:2].tolist())
"""

SHUFFLE = """
import numpy as np
from scdiff_data.base import compiled, translate_sixteen

@compiled
def translate(values, table, found, large):
    for k in range(len(values) // 16):
        to, from_ = found.ctypes.data + 16 * k, values.ctypes.data + 32 * k
        large[k] = translate_sixteen(to, from_, table.ctypes.data)

values, table = np.arange(65_536).astype(np.uint16), np.arange(100, 116).astype(np.uint8)
found, large = np.empty(65_536, np.uint8), np.empty(4_096, np.uint64)
translate(values, table, found, large)
assert (found == table[values % 16]).all()
assert (large == np.where(np.arange(4_096) > 0, 65_535, 0)).all()
values[5] = 16
translate(values, table, found, large)
assert large[0] == 1 << 5
print("shuffles" if "pshufb" in next(iter(translate.inspect_asm().values())) else "picks")
"""


@pytest.mark.parametrize("processor", ["generic", ""])
def test_sixteen_bytes_are_looked_up_on_processors_that_cannot_shuffle_too(
    processor: str, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SHUFFLE)
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    if processor:
        environment |= {"NUMBA_CPU_NAME": processor, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if processor:
        assert done.stdout == "picks\n"


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
