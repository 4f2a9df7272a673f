"""When a rank is killed, the others end soon."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import torch

from support import forks
from support.cases import TESTS


def has_ended(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(") ")[2].startswith("Z")  # nobody has asked how it ended


def kill_a_rank(data_dir: Path, out: Path, **when: Any) -> tuple[forks.Fork, float]:
    """Run two ranks of which one is killed; gives the first one, and the seconds until both end."""
    arguments = {"data_dir": str(data_dir), "out": str(out), "devices": 2, "save_every": 100}
    arguments |= {"stops": True, **when}
    with forks.Fork("support.resume_run", json.dumps(arguments), cwd=TESTS, folder=out) as first:
        pids = []
        while len(pids) < 2:
            pids = [int(path.read_text() or 0) for path in out.glob("rank*.pid")]
            time.sleep(0.1)
        while not any(map(has_ended, pids)):
            time.sleep(0.1)
        start = time.perf_counter()
        while not all(map(has_ended, pids)):
            assert time.perf_counter() - start < 60, first.stderr
            time.sleep(0.1)
        first.wait(10)
    return first, time.perf_counter() - start


def test_when_the_first_rank_is_killed_one_that_validates_ends_too(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    first, n_seconds = kill_a_rank(pbmc_dir, tmp_path, kill_at="validation")
    assert first.returncode == -signal.SIGKILL
    assert "the process that started this rank is gone" in first.stderr
    assert n_seconds < 20


def test_when_another_rank_is_killed_the_first_one_keeps_the_last_step(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    first, n_seconds = kill_a_rank(pbmc_dir, tmp_path, kill_at=3, kill_rank=1)
    assert first.returncode == 1
    assert n_seconds < 20
    path = tmp_path / "exception.ckpt"
    assert f"go on with ckpt_path={path}, the last whole step" in first.stderr.splitlines()[-1]
    kept = torch.load(path, weights_only=True)
    assert kept["global_step"] == 3
    progress = kept["ScRNADataModule"]["progress"]
    assert progress["position"] == 3 * 2 * 32
