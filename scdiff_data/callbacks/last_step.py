"""The last whole step of a run: whether the weights are of one, and how it is kept."""

from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor


class LastStep:
    """Knows whether an exception came between two steps, or in the middle of one's update.

    Gradients change no weights: what fails in a forward or backward pass leaves the last step
    whole. An optimizer that fails has changed some weights and not others.

    Parameters
    ----------
    trainer
        A trainer that is about to train.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._n_before = self._n_steps = trainer.global_step
        self._n_batches = _count_batches(trainer)
        self._update: tuple[int, tuple[int, int]] | None = None

    def note_batch(self, trainer: Trainer) -> bool:
        """Take note that a batch is done; says whether a step was taken with it."""
        has_stepped = trainer.global_step != self._n_steps
        self._n_steps, self._n_batches = trainer.global_step, _count_batches(trainer)
        return has_stepped

    def note_update(self, trainer: Trainer) -> None:
        """Take note that an optimizer is about to change weights."""
        if _is_alone_able(trainer):
            self._update = trainer.global_step, _count_changes(trainer)

    def is_whole(self, trainer: Trainer) -> bool:
        """Whether all that was done of the step at hand is nothing, or all of it."""
        n_steps = trainer.global_step
        is_updating = self._update is not None and self._update[0] == n_steps
        if is_updating and self._update != (n_steps, _count_changes(trainer)):
            return False
        # A module may take several steps with a batch, as those with several optimizers do.
        return n_steps == self._n_steps or _count_batches(trainer) > self._n_batches

    def keep(self, trainer: Trainer, path: Path) -> bool:
        """Save it, if there is one, and if the first rank can do so without the others."""
        has_stepped = trainer.global_step > self._n_before
        if not (has_stepped and _is_alone_able(trainer) and self.is_whole(trainer)):
            return False
        # `Trainer.save_checkpoint` would wait for all ranks.
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        trainer.strategy.save_checkpoint(checkpoint, path)
        return True


def _is_alone_able(trainer: Trainer) -> bool:
    """Whether this is the first rank, and has the whole model and optimizer."""
    has_all = type(trainer.strategy) in (SingleDeviceStrategy, DDPStrategy)  # DeepSpeed's is a DDP
    has_all &= not any(hasattr(one, "consolidate_state_dict") for one in trainer.optimizers)
    return trainer.is_global_zero and (has_all or trainer.world_size == 1)


def _count_batches(trainer: Trainer) -> int:
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    return int(progress.total.processed)


def _count_changes(trainer: Trainer) -> tuple[int, int]:
    """Tensors that optimizers change, weights and their own, and how often they were changed."""
    tensors: list[Any] = []
    for optimizer in trainer.optimizers:
        tensors += [weight for group in optimizer.param_groups for weight in group["params"]]
        kept = [value for state in optimizer.state.values() for value in state.values()]
        tensors += [value for value in kept if isinstance(value, Tensor)]
    return len(tensors), sum(tensor._version for tensor in tensors)
