"""Ranks that torchrun or Slurm start are one run, and so is a job that is started again."""

import json
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from support import forks
from support.cases import ROOT
from support.slurm import be_task, submit

TINY = [
    *("data.n_hvgs=32", "data.batch_size=16", "model.d_model=8", "model.n_heads=2"),
    *("callbacks.report.n_cells=16", "callbacks.report.steps=2", "trainer=ddp_cpu"),
]
LATE = """
import os, runpy, time
time.sleep(2 * int(os.environ["RANK"]))
runpy.run_path({script!r}, run_name="__main__")
"""
"""The command, started later by ranks but the first."""


def test_ranks_of_torchrun_that_start_seconds_apart_are_one_run(tmp_path: Path) -> None:
    late = tmp_path / "late.py"
    late.write_text(LATE.format(script=str(ROOT / "train.py")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    finished = subprocess.run(
        [*launch, str(late), *TINY, "trainer.max_epochs=1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert finished.returncode == 0, finished.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "metrics.json").exists()
    assert finished.stdout.strip().splitlines()[-1] == str(folder)


def run_job(
    monkeypatch: pytest.MonkeyPatch, folder: Path, *overrides: str, stops: bool
) -> list[forks.Fork]:
    """Run two tasks as srun does, the second later, to their ends; Slurm may want them back."""
    with ExitStack() as stack:
        tasks = []
        for number in range(2):
            be_task(monkeypatch, number)
            one = forks.Fork(ROOT / "train.py", *TINY, *overrides, cwd=folder, folder=folder)
            tasks.append(stack.enter_context(one))
            time.sleep(2)
        while stops and not list(folder.glob("runs/*/checkpoints/last.ckpt")):
            assert tasks[0].returncode is None, tasks[0].stderr
            time.sleep(0.1)
        for task in tasks:
            if stops:
                task.send(signal.SIGUSR1)
        for task in tasks:
            task.wait(120)
    return tasks


def test_a_job_that_slurm_starts_again_goes_on_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = submit(monkeypatch, tmp_path, n_tasks=2)
    stopped = run_job(monkeypatch, tmp_path, "trainer.max_epochs=10", stops=True)
    assert {task.returncode for task in stopped} == {128 + signal.SIGUSR1}, stopped[0].stderr
    (folder,) = (tmp_path / "runs").iterdir()
    saved = folder / "hpc_ckpt_1.ckpt"
    assert asked.read_text().splitlines() == ["requeue 4321", str(saved)]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    finished = run_job(monkeypatch, tmp_path, "trainer.max_epochs=10", stops=False)
    assert {task.returncode for task in finished} == {0}, finished[0].stderr
    assert list((tmp_path / "runs").iterdir()) == [folder]
    assert f"going on from {saved}" in finished[0].stderr
    assert json.loads((folder / "metrics.json").read_text())["epoch"] == 9
    assert "test/loss" in json.loads((folder / "metrics.json").read_text())
    assert not saved.exists()
    assert OmegaConf.load(folder / "config.yaml").ckpt_path is None
    assert [path.name for path in sorted(folder.glob("logs*"))] == ["logs", "logs1"]
