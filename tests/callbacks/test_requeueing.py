"""Slurm's automatic requeue comes after the step at hand, and the job goes on exactly."""

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support import forks
from support.cases import TESTS
from support.resume_run import seen_by_ranks
from support.slurm import be_task, submit


def run_tasks(
    monkeypatch: pytest.MonkeyPatch, folder: Path, n_tasks: int, *runs: dict[str, Any]
) -> list[forks.Fork]:
    """Run the job's tasks, as srun does, to their ends."""
    with ExitStack() as stack:
        tasks = []
        for number in range(n_tasks):
            be_task(monkeypatch, number)
            one = forks.Fork("support.resume_run", *map(json.dumps, runs), cwd=TESTS, folder=folder)
            tasks.append(stack.enter_context(one))
        for task in tasks:
            task.wait(120)
    return tasks


@pytest.mark.parametrize("n_tasks", [1, 2])
def test_a_requeued_job_goes_on_after_the_step_at_hand(
    pbmc_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_tasks: int
) -> None:
    asked = submit(monkeypatch, tmp_path, n_tasks)
    job = {"data_dir": str(pbmc_dir), "devices": n_tasks, "max_epochs": 1, "save_every": 100}
    job |= {"stops": True, "out": str(tmp_path / "job")}
    signalled = job | {"kill_at": 3, "kill_with": signal.SIGUSR1, "kill_rank": n_tasks - 1}
    stopped = run_tasks(monkeypatch, tmp_path, n_tasks, signalled)
    assert {task.returncode for task in stopped} == {128 + signal.SIGUSR1}, stopped[0].stderr
    assert "stopped by SIGUSR1: the job starts again" in stopped[0].stderr
    saved = tmp_path / "job" / "hpc_ckpt_1.ckpt"
    assert asked.read_text().splitlines() == ["requeue 4321", str(saved)]  # and in this order
    whole = job | {"out": str(tmp_path / "whole")}
    finished = run_tasks(monkeypatch, tmp_path, n_tasks, whole, job)
    assert {task.returncode for task in finished} == {0}, finished[0].stderr
    whole_steps, steps = (seen_by_ranks(tmp_path / name, n_tasks) for name in ("whole", "job"))
    assert steps == whole_steps[4:]
    assert not saved.exists()  # Lightning would test with it


def test_a_job_that_slurm_does_not_requeue_says_how_to_go_on(
    pbmc_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(monkeypatch, tmp_path)
    (tmp_path / "bin" / "scontrol").write_text("#!/bin/sh\necho not allowed >&2\nexit 1\n")
    job = {"data_dir": str(pbmc_dir), "save_every": 100, "stops": True, "out": str(tmp_path)}
    job |= {"kill_at": 3, "kill_with": signal.SIGUSR1}
    (stopped,) = run_tasks(monkeypatch, tmp_path, 1, job)
    assert stopped.returncode == 128 + signal.SIGUSR1
    refused, last = stopped.stderr.strip().splitlines()[-2:]
    assert "job 4321 is not requeued: scontrol says not allowed" in refused
    assert f"go on with ckpt_path={tmp_path / 'hpc_ckpt_1.ckpt'}" in last
