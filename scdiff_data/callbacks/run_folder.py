"""What a run that is started again goes on from, and what a checkpoint cannot be read for."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from scdiff_data.callbacks.requeueing import list_requeued
from scdiff_data.starting import RUN_NAME


def find_checkpoint(run_dir: str | Path) -> Path | None:
    """The newest checkpoint that this run left when it was started before; None in a new run.

    `exception.ckpt` is left to the user: what failed may have broken the weights.
    """
    run_dir = Path(run_dir)
    is_same_run = os.environ.get(RUN_NAME) in run_dir.parts
    if not (is_same_run or int(os.environ.get("SLURM_RESTART_COUNT", "0"))):
        return None
    paths = [run_dir / "checkpoints" / "last.ckpt", *list_requeued(run_dir)]
    found = [path for path in paths if path.exists()]
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


@contextmanager
def explain_unreadable(checkpoint: Any, *, model: str) -> Iterator[None]:
    """Turn what torch and Lightning raise of an unreadable checkpoint into a ValueError."""
    try:
        yield
    except (UnpicklingError, EOFError, KeyError, RuntimeError, TypeError) as error:
        said = str(error).partition("\n")[0]
        if isinstance(error, UnpicklingError):  # torch's advice is to run what is in it
            said = "it is none, or holds more than tensors and plain values"
        raise ValueError(
            f"{checkpoint} cannot be read as a checkpoint of {model}: {said}"
        ) from error
