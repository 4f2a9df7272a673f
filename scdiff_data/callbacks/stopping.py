"""A run that is told to stop keeps what it learnt, and says that it did not finish."""

import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What schedulers send, and Ctrl-C."""


class StopCheckpoint(Checkpoint):
    """On SIGTERM or Ctrl-C, ends training after the optimizer's step at hand, with a checkpoint.

    The process exits with 143 or 130, so that a scheduler does not take the run for finished. A
    validation that is on is finished first; a second signal ends the run at once. With many ranks
    all stop after the same step, whichever of them is told.

    Lightning's own handling of SIGTERM saves nothing, exits with 0, and its broadcast from within
    the handler may meet another of the ranks' messages; this one takes its place.

    Parameters
    ----------
    path
        Where the checkpoint goes, over one that is there: it resumes exactly.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._received: int | None = None
        self._last_step = 0

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen before the first batch."""
        self._listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in Lightning's place."""
        self._listen()
        self._last_step = trainer.global_step

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in Lightning's place."""
        self._listen()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop here if any rank was told to, and no gradients are kept for a later step."""
        has_stepped = trainer.global_step != self._last_step
        self._last_step = trainer.global_step
        if has_stepped and self._is_asked(trainer):
            trainer.save_checkpoint(self.path)
            self._exit(f"go on with ckpt_path={self.path}")

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop here if any rank was told to: what was trained is saved already."""
        if self._is_asked(trainer):
            self._exit("the test was not finished")

    def _listen(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._received is not None:
            sys.exit(128 + number)
        self._received = number

    def _is_asked(self, trainer: Trainer) -> bool:
        is_asked = self._received is not None
        if trainer.world_size > 1:
            is_asked = trainer.strategy.reduce_boolean_decision(is_asked, all=False)
        return is_asked

    def _exit(self, message: str) -> None:
        number = self._received or signal.SIGTERM
        logger.warning("stopped by %s: %s", signal.Signals(number).name, message)
        sys.exit(128 + number)


@contextmanager
def exit_when_told() -> Iterator[None]:
    """Make SIGTERM and Ctrl-C end the process with 143 or 130, and not with a traceback.

    Work that goes on where it was killed, such as preparing data, needs no more; training has
    `StopCheckpoint`.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        del frame
        raise KeyboardInterrupt(number)

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as ended:
        # Lightning turns a KeyboardInterrupt into an exit of its own.
        told = ended if isinstance(ended, KeyboardInterrupt) else ended.__context__
        if not isinstance(told, KeyboardInterrupt):
            raise
        sys.exit(128 + (told.args[0] if told.args else signal.SIGINT))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
