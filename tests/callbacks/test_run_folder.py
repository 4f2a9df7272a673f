"""A job's run is found again, and no other one is taken for it."""

import os
from pathlib import Path

import pytest

from scdiff_data.callbacks import find_checkpoint
from support.slurm import name_of_run, submit


def test_a_run_goes_on_from_the_newest_of_its_own_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(monkeypatch, tmp_path)
    run_dir = tmp_path / (name_of_run(monkeypatch) or "")
    assert find_checkpoint(run_dir) is None
    names = ["checkpoints/last.ckpt", "hpc_ckpt_1.ckpt", "checkpoints/exception.ckpt"]
    paths = [run_dir / one for one in names]
    paths[0].parent.mkdir(parents=True)
    for seconds, path in enumerate(paths):
        path.touch()
        os.utime(path, (seconds, seconds))
    assert find_checkpoint(run_dir) == paths[1]
    os.utime(paths[0], (9, 9))
    assert find_checkpoint(run_dir) == paths[0]
    name_of_run(monkeypatch, "model=small")
    assert find_checkpoint(run_dir) is None  # of another run that was given this folder
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert find_checkpoint(run_dir) == paths[0]
