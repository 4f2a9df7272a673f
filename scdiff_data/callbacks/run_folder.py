"""Where a run lies: one folder for all ranks, and the same one when a job is started again."""

import os
import sys
from datetime import datetime
from pathlib import Path

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from scdiff_data.base import digest
from scdiff_data.callbacks.requeueing import list_requeued

_NAME = "SCDIFF_RUN"
"""Variable of the environment that names the run's folder; `configs/hydra/default.yaml` reads it.

Where it is not set, the time is the name."""


def name_run() -> None:
    """Name the run alike on all ranks that Slurm or torchrun start; those of Lightning are told.

    A Slurm job's run is named by the job and the command, so the same job, started again, finds it;
    not in interactive jobs, where a command typed twice means two runs.
    """
    if _NAME in os.environ:
        return
    if (job := SLURMEnvironment.job_id()) is not None:
        command = [os.environ.get("SLURM_CLUSTER_NAME", ""), *sys.argv[1:]]
        os.environ[_NAME] = f"job-{job}-{digest(command)[:8]}"
    elif os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        # Ranks start seconds apart, and a launch has no name of its own: they take that of the
        # first to come.
        store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
        name = store.compare_set(_NAME, "", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
        os.environ[_NAME] = name.decode()


def find_checkpoint(run_dir: str | Path) -> Path | None:
    """The newest checkpoint that this run left when it was started before; None in a new run.

    `exception.ckpt` is left to the user: what failed may have broken the weights.
    """
    run_dir = Path(run_dir)
    is_same_run = os.environ.get(_NAME) in run_dir.parts
    if not (is_same_run or int(os.environ.get("SLURM_RESTART_COUNT", "0"))):
        return None
    paths = [run_dir / "checkpoints" / "last.ckpt", *list_requeued(run_dir)]
    found = [path for path in paths if path.exists()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
