"""The name of a run: the same on all ranks, and when a job is started again."""

import os
import sys
from datetime import datetime
from hashlib import sha256

RUN_NAME = "SCDIFF_RUN"
"""Variable of the environment that names the run's folder; `configs/hydra/default.yaml` reads it.

Where it is not set, the time is the name."""

_TYPED = ("bash", "interactive")
"""Names of Slurm's jobs in which commands are typed; so Lightning takes them, too."""


def name_run() -> None:
    """Name the run alike on all ranks that Slurm or torchrun start; those of Lightning are told.

    A Slurm job's run is named by the job and the command, so the same job, started again, finds it;
    not in interactive jobs, where a command typed twice means two runs.
    """
    if RUN_NAME in os.environ:
        return
    job, is_typed = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_JOB_NAME") in _TYPED
    if job is not None and not is_typed:
        command = "\0".join([os.environ.get("SLURM_CLUSTER_NAME", ""), *sys.argv[1:]])
        os.environ[RUN_NAME] = f"job-{job}-{sha256(command.encode()).hexdigest()[:8]}"
    elif os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        os.environ[RUN_NAME] = _name_of_launch()


def _name_of_launch() -> str:
    """That of the first rank to come: they start seconds apart, and a launch has no name."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    name = store.compare_set(RUN_NAME, "", f"{datetime.now():%Y-%m-%d_%H-%M-%S}")
    return str(name.decode())
