"""A job that is started again has the name it had, and no other job has it."""

import os
import sys
from pathlib import Path

import pytest

from scdiff_data.starting import name_run
from support.slurm import submit


def name(monkeypatch: pytest.MonkeyPatch, *command: str) -> str | None:
    monkeypatch.delenv("SCDIFF_RUN", raising=False)
    monkeypatch.setattr(sys, "argv", ["train.py", *command])
    name_run()
    found = os.environ.get("SCDIFF_RUN")
    monkeypatch.setenv("SCDIFF_RUN", found or "")  # and is unset again after the test
    return found


def test_a_run_is_named_by_its_job_and_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert name(monkeypatch) is None  # by the time
    submit(monkeypatch, tmp_path)
    first = name(monkeypatch, "model=tiny")
    assert first == name(monkeypatch, "model=tiny")
    assert first != name(monkeypatch, "model=small")
    monkeypatch.setenv("SLURM_JOB_ID", "4322")
    assert first != name(monkeypatch, "model=tiny")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    assert name(monkeypatch, "model=tiny") is None
