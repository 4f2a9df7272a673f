"""Generated cells beside real ones, drawn while training goes on."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.seed import isolate_rng

from scdiff_data.base import render_figure, write_aside
from scdiff_data.evaluation.comparison import Generator
from scdiff_data.evaluation.figure import draw_samples
from scdiff_data.evaluation.panels import Counts, Samples
from scdiff_data.measuring import MIN_CELLS
from scdiff_data.training import ScRNADataModule

if TYPE_CHECKING:
    from PIL.Image import Image

_log = logging.getLogger(__name__)

_KEY = "generated cells"
"""What loggers show the picture as."""


class SampleCells(Callback):
    """Draw generated cells beside held-out ones while training goes on.

    The picture goes to every logger that takes some (TensorBoard, Weights & Biases). If none does,
    it is a PNG in `samples/`, in the logger's folder or the trainer's. The average of the weights
    is what generates, if `WeightEMA` keeps one.

    Training is the same with and without it, to the bit: what generating draws is drawn beside the
    random state, and the first rank alone does it. It has no state: a run that goes on draws where
    the undisturbed one would.

    Parameters
    ----------
    every_n_epochs
        Epochs between pictures; None draws none at the end of epochs.
    every_n_train_steps
        Optimizer steps between pictures, beside those; None draws none.
    n_cells
        Cells to generate, and the most real ones beside them: validation cells, and where there
        are too few, training cells.
    steps
        Sampling steps; few are enough to see where it goes.
    """

    def __init__(
        self,
        every_n_epochs: int | None = 10,
        *,
        every_n_train_steps: int | None = None,
        n_cells: int = 128,
        steps: int = 16,
    ) -> None:
        periods = {"every_n_epochs": every_n_epochs, "every_n_train_steps": every_n_train_steps}
        for name, n in periods.items():
            if n is not None and n < 1:
                raise ValueError(f"{name} must be at least 1, or None for no pictures, got {n}")
        if n_cells < MIN_CELLS:
            raise ValueError(f"n_cells must be at least {MIN_CELLS}, got {n_cells}")
        self._every_n_epochs, self._every_n_train_steps = every_n_epochs, every_n_train_steps
        self._n_cells, self._steps = n_cells, steps
        self._last_step = 0
        self._is_on = False
        self._real: tuple[Counts, Counts] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module that generates nothing, before it is trained."""
        if stage == "fit" and not hasattr(pl_module, "generate"):
            raise ValueError(
                "SampleCells draws what a module's generate(n_cells, steps=…) makes, but "
                f"{type(pl_module).__name__} has no such method: add it, or leave SampleCells out"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether the first rank can generate without the others."""
        self._real, self._last_step = None, trainer.global_step
        self._is_on = trainer.is_global_zero
        if self._is_on and type(trainer.strategy) not in (SingleDeviceStrategy, DDPStrategy):
            _log.warning(
                "SampleCells draws nothing: with %s, the first rank has not the whole model",
                type(trainer.strategy).__name__,
            )
            self._is_on = False

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Draw after a step that is due; of several batches of a step, after the last."""
        step, n = trainer.global_step, self._every_n_train_steps
        if n is not None and step != self._last_step and step % n == 0:
            self._draw(trainer, pl_module)
        self._last_step = step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw after an epoch that is due."""
        n = self._every_n_epochs
        if n is not None and (trainer.current_epoch + 1) % n == 0:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._is_on:
            return
        datamodule: ScRNADataModule = trainer.datamodule  # type: ignore[attr-defined]
        model = _find_average(trainer) or pl_module
        with isolate_rng(), torch.no_grad(), _evaluating(model):
            real_cg, other_cg = self._real = self._real or self._read(datamodule)
            generated = cast("Generator", model).generate(len(real_cg), steps=self._steps)
            samples = Samples.cut(generated.X.toarray(), real_cg, other_cg)
            title = f"step {trainer.global_step:,}, epoch {trainer.current_epoch + 1:,}: "
            title += f"{len(samples):,} generated cells beside as many held-out ones"
            picture = render_figure(draw_samples(samples, title))
        _log_picture(trainer, picture)

    def _read(self, datamodule: ScRNADataModule) -> tuple[Counts, Counts]:
        """Held-out cells, and others to compare with; read once."""
        train, held_out = datamodule.train_dataset, datamodule.val_dataset
        held_out = held_out if len(held_out) >= MIN_CELLS else train
        first, other = (
            np.asarray(cells[: self._n_cells].expression) for cells in (held_out, train)
        )
        return first, other


def _find_average(trainer: Trainer) -> LightningModule | None:
    """The module that has the average of the weights, if a callback keeps one."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, WeightAveraging) and callback._average_model is not None:
            return cast("LightningModule", callback._average_model.module)
    return None


@contextmanager
def _evaluating(model: LightningModule) -> Iterator[None]:
    """Let a module be in evaluation, and each of its parts be as it was afterwards."""
    before = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, is_training in before:
            part.training = is_training


def _log_picture(trainer: Trainer, picture: bytes) -> None:
    step = trainer.global_step
    have_it = [_give(logger, picture, step) for logger in trainer.loggers]
    if not any(have_it):
        # `Trainer.log_dir` would wait for all ranks.
        folders = [getattr(one, "log_dir", None) or one.save_dir for one in trainer.loggers]
        folder = next((path for path in folders if path), trainer.default_root_dir)
        with write_aside(Path(folder) / "samples" / f"step_{step:07d}.png") as aside:
            aside.write_bytes(picture)


def _give(logger: Logger, picture: bytes, step: int) -> bool:
    """Give a logger the picture; says whether it takes some."""
    if hasattr(logger, "log_image"):  # Weights & Biases
        logger.log_image(key=_KEY, images=[_open(picture)], step=step)
    elif hasattr(logger, "experiment") and hasattr(logger.experiment, "add_image"):  # TensorBoard
        logger.experiment.add_image(_KEY, np.asarray(_open(picture)), step, dataformats="HWC")
    else:
        return False
    return True


def _open(picture: bytes) -> "Image":
    from PIL import Image

    return Image.open(BytesIO(picture)).convert("RGB")
