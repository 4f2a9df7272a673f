"""How far training is: one bar from the first batch to the last, whatever the number of epochs."""

import logging
from collections.abc import Mapping
from math import ceil, isfinite
from time import monotonic
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from scdiff_data.telling import Progress, tell

logger = logging.getLogger(__name__)

_FORMS = {"cells/s": "{:,.0f} cells/s", "waited": "{:.0%} waiting", "mfu": "{:.0%} of the peak"}
"""How a bar shows what `Speed` logs."""

_LEAST_WAITED = 0.01
"""Share of the time in which batches are waited for, from which on it is shown."""

_SECONDS_BETWEEN_NOTES = 0.5
"""Reading a logged value waits for the GPU: not after every batch."""


class TrainingProgress(ProgressBar):
    """In place of Lightning's bars: one for all epochs, with what was logged for a bar.

    Without a terminal it is a line every 30 seconds. `validate`, `test` and `predict` have a bar of
    their own; a validation between epochs is named in that of training.
    """

    def __init__(self) -> None:
        super().__init__()
        self._progress: Progress | None = None
        self._next_note = 0.0
        self._is_on = True

    def enable(self) -> None:
        """Show bars, as Lightning asks."""
        self._is_on = True

    def disable(self) -> None:
        """Show none: Lightning's tuners do not want them."""
        self._is_on = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bar."""
        tell(" ".join(map(str, args)))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is trained, and start the bar where a checkpoint left it."""
        n_weights = sum(weight.numel() for weight in pl_module.parameters())
        if trainer.is_global_zero:
            logger.info(
                "%s: %s parameters, on %s (precision %s)",
                *(type(pl_module).__name__, f"{n_weights:,}", _describe_devices(trainer)),
                trainer.precision,
            )
        self._begin("train", _count_batches(trainer))
        if self._progress is not None:
            batches: Any = trainer.fit_loop.epoch_loop.batch_progress
            self._progress.skip(batches.total.processed)

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Count the batch."""
        if self._progress is None:
            return
        self._progress.add()
        if monotonic() >= self._next_note:
            self._note(trainer)

    def _note(self, trainer: Trainer, doing: str = "") -> None:
        if self._progress is not None:
            self._next_note = monotonic() + _SECONDS_BETWEEN_NOTES
            epoch, n_epochs = trainer.current_epoch + 1, trainer.max_epochs or -1
            place = f"epoch {epoch}"
            if n_epochs > 0:  # after the last one, Lightning counts one more
                place = f"epoch {min(epoch, n_epochs)} of {n_epochs}"
            known = [place, doing, _describe_values(trainer.progress_bar_metrics)]
            self._progress.note(", ".join(part for part in known if part))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar."""
        self._note(trainer)
        self._end()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say that training waits for a validation; one that was asked for has a bar of its own."""
        if self._progress is not None:
            self._note(trainer, "validating")
        elif not trainer.sanity_checking:
            self._begin("validate", _sum_finite(trainer.num_val_batches))

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Count the batch of a validation that was asked for."""
        self._count_of(trainer)

    def _count_of(self, trainer: Trainer) -> None:
        if self._progress is not None and trainer.state.fn != "fit":
            self._progress.add()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with training's bar."""
        if trainer.state.fn == "fit":
            self._next_note = 0.0
        else:
            self._end()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a bar."""
        self._begin("test", _sum_finite(trainer.num_test_batches))

    def on_test_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Count the batch."""
        self._count_of(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar."""
        self._end()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a bar."""
        self._begin("predict", _sum_finite(trainer.num_predict_batches))

    def on_predict_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Count the batch."""
        self._count_of(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar."""
        self._end()

    def on_exception(self, *_: Any, **__: Any) -> None:
        """Leave no bar where a message is about to be told."""
        self._end()

    def teardown(self, *_: Any, **__: Any) -> None:
        """Leave no bar where training ended in another way."""
        self._end()

    def _begin(self, stage: str, total: int | None) -> None:
        self._end()
        if self._is_on and self.trainer.is_global_zero:
            self._progress = Progress(stage, "batches", total)
            self._progress.__enter__()

    def _end(self) -> None:
        if self._progress is not None:
            self._progress.__exit__()
            self._progress = None


def _count_batches(trainer: Trainer) -> int | None:
    """Training batches of all epochs; None where there is no end."""
    n_batches, n_each = trainer.num_training_batches, trainer.accumulate_grad_batches
    totals = []
    if (n_epochs := trainer.max_epochs) is not None and n_epochs >= 0 and isfinite(n_batches):
        totals.append(int(n_batches) * n_epochs)
    if trainer.max_steps >= 0 and not isfinite(n_batches):
        totals.append(trainer.max_steps * n_each)
    elif trainer.max_steps >= 0 and n_batches:  # the last step of an epoch takes what is left
        n_whole, n_left = divmod(trainer.max_steps, ceil(n_batches / n_each))
        totals.append(n_whole * int(n_batches) + n_left * n_each)
    return min(totals, default=None)


def _sum_finite(n_batches: Any) -> int | None:
    """Batches of all loaders; None where one has no end."""
    total = sum(n_batches) if isinstance(n_batches, list) else n_batches
    return int(total) if isfinite(total) else None


def _describe_values(values: Mapping[str, Any]) -> str:
    """What was logged for the bar."""
    known = {name: float(value) for name, value in values.items()}
    if known.get("waited", 1) < _LEAST_WAITED:
        del known["waited"]
    return ", ".join(
        _FORMS.get(name, f"{name.removeprefix('train/')} {{:.4g}}").format(value)
        for name, value in known.items()
    )


def _describe_devices(trainer: Trainer) -> str:
    kind = trainer.strategy.root_device.type
    n = trainer.world_size
    return kind if n == 1 else f"{n} x {kind}"
