"""A job that is started again has the name it had, and no other job has it."""

from pathlib import Path

import pytest

from support.slurm import name_of_run, submit


def test_a_run_is_named_by_its_job_and_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name_of_run(monkeypatch) is None  # by the time
    submit(monkeypatch, tmp_path)
    first = name_of_run(monkeypatch, "model=tiny")
    assert first == name_of_run(monkeypatch, "model=tiny")
    assert first != name_of_run(monkeypatch, "model=small")
    monkeypatch.setenv("SLURM_JOB_ID", "4322")
    assert first != name_of_run(monkeypatch, "model=tiny")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert name_of_run(monkeypatch, "model=tiny") is None
