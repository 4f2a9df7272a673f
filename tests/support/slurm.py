"""What stands in for Slurm: the variables that its tasks find, and its command."""

import os
import socket
import sys
from pathlib import Path

import pytest

from scdiff_data.starting import name_run


def submit(monkeypatch: pytest.MonkeyPatch, folder: Path, n_tasks: int = 1) -> Path:
    """Be in job 4321; gives the file in which `scontrol` writes its arguments and checkpoints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {
        "SLURM_JOB_ID": "4321",
        "SLURM_JOB_NAME": "train",
        "SLURM_NTASKS": str(n_tasks),
        "SLURM_NTASKS_PER_NODE": str(n_tasks),
        "SLURM_NODEID": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PATH": f"{folder}/bin:/usr/bin:/bin",
    }.items():
        monkeypatch.setenv(name, value)
    be_task(monkeypatch, 0)
    asked, command = folder / "asked", folder / "bin" / "scontrol"
    command.parent.mkdir()
    command.write_text(
        f"#!/bin/sh\necho $@ >>{asked}\nfind {folder} -name 'hpc_ckpt_*' >>{asked}\n"
    )
    command.chmod(0o755)
    return asked


def be_task(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Be one of the job's tasks."""
    monkeypatch.setenv("SLURM_PROCID", str(number))
    monkeypatch.setenv("SLURM_LOCALID", str(number))


def name_of_run(monkeypatch: pytest.MonkeyPatch, *command: str) -> str | None:
    """What a run of `train.py` with these settings is named in the environment; None without."""
    monkeypatch.setenv("SCDIFF_RUN", "")  # so that it is as it was after the test
    monkeypatch.delenv("SCDIFF_RUN")
    monkeypatch.setattr(sys, "argv", ["train.py", *command])
    name_run()
    found = os.environ.get("SCDIFF_RUN")
    monkeypatch.setenv("SCDIFF_RUN", found or "")
    return found
