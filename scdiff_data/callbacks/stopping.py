"""A run that is told to stop, or fails, keeps what it learnt and says that it did not finish."""

import atexit
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, NoReturn

import torch.distributed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer
from lightning.pytorch.trainer.states import TrainerFn
from torch.optim import Optimizer

from scdiff_data.callbacks.last_step import LastStep
from scdiff_data.callbacks.other_ranks import call_off_observer, end_with_launcher
from scdiff_data.callbacks.requeueing import (
    find_requeue_signal,
    remove_requeued,
    requeue_job,
    save_for_requeue,
)

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What schedulers send, and Ctrl-C."""


class StopCheckpoint(Checkpoint):
    """On SIGTERM or Ctrl-C, ends training after the optimizer's step at hand, with a checkpoint.

    The process exits with 143 or 130, so that a scheduler does not take the run for finished. A
    validation that is on is finished first; a second signal ends the run at once. With many ranks
    all stop after the same step, whichever of them is told. `validate`, `test` and `predict` stop
    after the batch at hand.

    - Where Lightning requeues Slurm's jobs, the signal that asks for it stops the run in the same
      way. The checkpoint then lies where Lightning looks for it when the job starts again, and
      `scontrol requeue` comes last.
    - When `max_time` ends training, there is a checkpoint, too.
    - After an exception the last whole step is kept beside, as `exception.ckpt`: its weights may be
      broken. Of many ranks the first one writes it, if it has all of the model.
    - Ranks that Lightning started end when the first one is gone.

    Lightning's own handling of SIGTERM saves nothing, exits with 0, and its broadcast from within
    the handler may meet another of the ranks' messages; its requeue saves in the middle of a step.
    This one takes their place.

    Parameters
    ----------
    path
        Where the checkpoint goes, over one that is there: it resumes exactly.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._received: int | None = None
        self._requeue_signal: int | None = None
        self._last_step: LastStep | None = None  # while there is training
        self._is_on = True
        end_with_launcher(lambda: self._is_on)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen as soon as Lightning does, in its place."""
        self._is_on, self._last_step = True, None
        connector: Any = trainer._signal_connector
        connector.register_signal_handlers = partial(self._listen, trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Nothing more is done with other ranks."""
        self._is_on = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop before the first step if any rank was told to by now."""
        if self._is_told(trainer):
            self._stop(trainer, "nothing was trained")
        self._last_step = LastStep(trainer)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Take note: an exception in what follows may leave half a step."""
        if self._last_step is not None:
            self._last_step.note_update(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Stop here if any rank was told to, and no gradients are kept for a later step."""
        has_stepped = self._last_step is not None and self._last_step.note_batch(trainer)
        if has_stepped and self._is_told(trainer):
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if the time is up: there may be no checkpoint of an unfinished epoch."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if trainer.should_stop and any(isinstance(one, Timer) for one in callbacks):
            trainer.save_checkpoint(self.path)
            self._say(
                trainer,
                f"training was ended early: go on with ckpt_path={self.path} and more max_time, "
                "which counts the time before as well",
            )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave nothing that Lightning would load before a test; say if there was no step left."""
        if self._last_step is None:
            more = "max_epochs, max_steps or max_time"
            self._say(trainer, f"nothing was left to train; to go on, raise {more}")
        self._last_step = None
        if self._requeue_signal is not None:
            remove_requeued(trainer)
            trainer.strategy.barrier()  # no rank looks for it before

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Stop `validate` here if any rank was told to; in training a step follows."""
        if trainer.state.fn == TrainerFn.VALIDATING and self._is_told(trainer):
            self._stop(trainer, "the validation was not finished")

    def on_test_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Stop here if any rank was told to: what was trained is saved already."""
        if self._is_told(trainer):
            self._stop(trainer, "the test was not finished")

    def on_predict_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Stop here if any rank was told to."""
        if self._is_told(trainer):
            self._stop(trainer, "the prediction was not finished")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Keep the last whole step, and let the exception say where it is."""
        if self._last_step is None or not isinstance(exception, Exception):
            return
        call_off_observer(trainer)
        path, known = self.path.with_name("exception.ckpt"), []
        try:
            if self._last_step.keep(trainer, path):
                known.append(f"ckpt_path={path}, the last whole step")
        except Exception:  # the first exception is the one to be told
            logger.exception("the last step could not be kept")
        if self.path.exists():
            known.append(f"ckpt_path={self.path}, saved before")
        if known and trainer.is_global_zero:
            exception.add_note(f"go on with {'; or with '.join(known)}")

    def _listen(self, trainer: Trainer) -> None:
        """Take the place of what Lightning registers."""
        connector = trainer._signal_connector
        type(connector).register_signal_handlers(connector)
        self._requeue_signal = find_requeue_signal(trainer)
        if current_thread() is main_thread():
            for number in (*_SIGNALS, self._requeue_signal):
                if number is not None:
                    signal.signal(number, self._note)
        if trainer.received_sigterm:  # in between
            self._received = signal.SIGTERM

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._received in _SIGNALS and number in _SIGNALS:
            sys.exit(128 + number)
        self._received = self._received or number

    def _is_told(self, trainer: Trainer) -> bool:
        return _agree(trainer, is_so=self._received is not None)

    def _stop(self, trainer: Trainer, advice: str | None = None) -> NoReturn:
        """Save, unless there is nothing to save but advice, and exit as one that did not finish."""
        number, self._received = self._received or signal.SIGTERM, None
        is_requeue = _agree(trainer, is_so=number == self._requeue_signal)
        if advice is None:
            path = self.path
            if is_requeue:
                path = save_for_requeue(trainer)
            else:
                trainer.save_checkpoint(path)
            advice = f"go on with ckpt_path={path}"
        if is_requeue:
            number = self._requeue_signal or number
            for one in trainer.loggers:
                one.save()
            if trainer.is_global_zero and requeue_job():
                advice = "the job starts again, and goes on where it was"
            # A rank that ends too soon may have Slurm end the first one before it has asked.
            trainer.strategy.barrier()
        self._say(trainer, f"stopped by {signal.Signals(number).name}: {advice}")
        call_off_observer(trainer)
        if trainer.world_size > 1 and torch.distributed.get_backend() == "gloo":
            # Lightning leaves it to the end of Python, where its threads may abort the process.
            atexit.register(torch.distributed.destroy_process_group)
        sys.exit(128 + number)

    def _say(self, trainer: Trainer, message: str) -> None:
        if trainer.is_global_zero:
            logger.warning(message)


def _agree(trainer: Trainer, *, is_so: bool) -> bool:
    """Whether it is so on any rank."""
    if trainer.world_size > 1:
        is_so = trainer.strategy.reduce_boolean_decision(is_so, all=False)
    return is_so


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
