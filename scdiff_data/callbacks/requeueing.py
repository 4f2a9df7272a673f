"""Slurm's automatic requeue: the signal that asks for it, the checkpoint, the command."""

import logging
import os
import subprocess
from pathlib import Path

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Trainer

logger = logging.getLogger(__name__)


def find_requeue_signal(trainer: Trainer) -> int | None:
    """The signal by which Slurm tells this run to be requeued; None if Lightning asks for none."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return environment.requeue_signal
    return None


def save_for_requeue(trainer: Trainer) -> Path:
    """Save where Lightning looks for a checkpoint by itself when the job starts again."""
    connector = trainer._checkpoint_connector
    path = Path(trainer.strategy.broadcast(connector.hpc_save_path(trainer.default_root_dir)))
    trainer.save_checkpoint(path)
    remove_requeued(trainer, but=path)
    return path


def remove_requeued(trainer: Trainer, but: Path | None = None) -> None:
    """Remove what was saved for a requeue: Lightning would load it before a test, too."""
    for path in list_requeued(Path(trainer.default_root_dir)):
        if path != but:
            trainer.strategy.remove_checkpoint(path)


def list_requeued(folder: Path) -> list[Path]:
    """What was saved in a folder for requeues."""
    return sorted(folder.glob("hpc_ckpt_*.ckpt"))


def requeue_job() -> bool:
    """Have Slurm start this job again; says whether it will."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]
    try:
        asked = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, text=True, check=False
        )
    except OSError as error:
        logger.warning("job %s is not requeued: %s", job, error)
        return False
    if asked.returncode:
        logger.warning("job %s is not requeued: scontrol says %s", job, asked.stderr.strip())
    return not asked.returncode
