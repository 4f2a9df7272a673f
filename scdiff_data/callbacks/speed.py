"""How fast training is: cells a second, what it waits for, the share of the GPU's peak."""

import logging
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from time import perf_counter
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ThroughputMonitor

from scdiff_data.loading import ResumableLoader

logger = logging.getLogger(__name__)

_MUCH_WAITED = 0.2
"""Share of the time from which on waiting is worth a line in the log."""

_LEAST_READ = 1e6
"""Bytes a second from the disk from which on it is the reason."""


class _Mark(NamedTuple):
    """The state after a step: seconds, seconds waited so far, bytes read from the disk so far."""

    time: float
    waited: float
    n_bytes: int


class Speed(ThroughputMonitor):
    """Lightning's monitor, in the progress bar too, and how long batches were waited for.

    Needs a logger. `cells/s` are those of all ranks; `waited` is the share of the time in which the
    loader was waited for, known for this package's loaders; `mfu` is known where Lightning knows
    the GPU's peak. If much is waited for and batches come from the disk, a line in the log says
    once what would help.

    Parameters
    ----------
    n_steps
        Steps that the mean is taken over.
    """

    def __init__(self, n_steps: int = 50) -> None:
        super().__init__(batch_size_fn=_count_cells, window_size=n_steps)
        self._marks: deque[_Mark] = deque(maxlen=n_steps + 1)
        self._has_warned = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count anew: between epochs something else may have been waited for."""
        super().on_train_epoch_start(trainer, pl_module)
        self._marks.clear()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the batch, and show what was last measured."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.is_global_zero:
            measured = trainer.logged_metrics
            on_this_rank = measured.get("train/device/samples_per_sec")
            speeds = {
                "cells/s": measured.get("train/samples_per_sec", on_this_rank),
                "waited": self._measure_waiting(trainer.train_dataloader, _count_cells(batch)),
                "mfu": measured.get("train/device/mfu"),
            }
            known = {name: speed for name, speed in speeds.items() if speed is not None}
            pl_module.log_dict(known, prog_bar=True, logger=False, rank_zero_only=True)
            if "waited" in known:
                waited = {"train/waited": known["waited"]}
                pl_module.log_dict(waited, logger=True, rank_zero_only=True)

    def _measure_waiting(self, loader: Any, n_cells: int) -> float | None:
        """Share of the time of the last steps in which the loader was waited for."""
        if not isinstance(loader, ResumableLoader):
            return None
        self._marks.append(_Mark(perf_counter(), loader.seconds_waited, count_bytes_read(loader)))
        first, last = self._marks[0], self._marks[-1]
        seconds = last.time - first.time
        if seconds <= 0:
            return None
        share = (last.waited - first.waited) / seconds
        rate = (last.n_bytes - first.n_bytes) / seconds
        is_full = len(self._marks) == self._marks.maxlen
        if is_full and share > _MUCH_WAITED and rate > _LEAST_READ and not self._has_warned:
            self._has_warned = True
            cells = n_cells * (len(self._marks) - 1) / seconds
            logger.warning(
                "training waits %.0f %% of its time for batches, which come from the disk: %.0f "
                "MB/s, %.0f cells/s on this rank. %s",
                100 * share,
                rate / 1e6,
                cells,
                _advise(loader),
            )
        return share


def _count_cells(batch: Any) -> int:
    """Cells of a batch, by the first of its parts; a module's own hooks may make it of any kind."""
    while not hasattr(batch, "shape"):
        batch = next(iter(batch.values() if isinstance(batch, Mapping) else batch))
    return int(batch.shape[0])


def count_bytes_read(loader: ResumableLoader) -> int:
    """Bytes that this process and the loader's workers have read from the disk.

    Where the system does not say, a page for each read that this process had to wait for.
    """
    workers = getattr(loader._iterator, "_workers", [])
    try:
        texts = [Path(f"/proc/{p}/io").read_text() for p in ("self", *(w.pid for w in workers))]
    except OSError:
        return 4096 * getrusage(RUSAGE_SELF).ru_majflt
    return sum(int(text.split("\nread_bytes: ")[1].split("\n")[0]) for text in texts)


def _advise(loader: ResumableLoader) -> str:
    """What would help, the most first."""
    advice, order = [], loader.sampler.order
    if loader.sampler.shuffle and not order["window_size"]:
        advice.append("data.shuffle=window reads whole runs of cells")
    if not getattr(loader.dataset, "is_compact", True):
        advice.append("'scdiff-data convert DATA_DIR compact' makes cells a sixth as long")
    return "; ".join([*advice, "more memory or a local SSD helps in any case"])
