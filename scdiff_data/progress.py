"""Where Lightning's own counts have to follow the cells seen, when a run goes on."""

from typing import Any

from lightning import Trainer


def follow_cells(trainer: Trainer, n_seen: int, n_left: int) -> None:
    """Tell the training loop how far its epoch has come, in batches of this run's size and ranks.

    A checkpoint counts in the batches of the run that wrote it, and Lightning 2.6 would leave out
    cells, or a validation.

    Parameters
    ----------
    trainer
        Whose checkpoint is being restored.
    n_seen, n_left
        Batches of the epoch that were seen, and that are left.
    """
    loop = trainer.fit_loop.epoch_loop
    progress: Any = loop.batch_progress
    validation: Any = loop.val_loop.batch_progress
    progress.is_last_batch = not n_left
    moved = n_seen - progress.current.ready
    for stage in ("ready", "started", "processed", "completed"):
        setattr(progress.current, stage, getattr(progress.current, stage) + moved)
    if not n_left and progress.total.completed < progress.total.processed:
        # Saved right after the epoch's last batch: Lightning would take the epoch for finished, and
        # leave out its validation. So the batch counts as completed, and the validation as begun.
        progress.current.completed += 1
        progress.total.completed += 1
        validation.reset_on_run()
        validation.total.processed = validation.total.completed
        validation.total.ready = validation.total.started = validation.total.completed + 1
