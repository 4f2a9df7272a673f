"""How far a run has come, as a checkpoint of Lightning's must say it for the run to go on exactly.

Lightning (2.6) saves its counters of epochs and batches. When a run goes on from these alone, it
skips

- an epoch, if the checkpoint was written at the last batch of the one before, or at its end;
- a validation that was due, or had begun;
- a batch that was fetched but not trained on;
- the rest of an epoch, if the batch size or the number of ranks has changed since.

A `Bookmark` is saved beside the counters, and sets them right before Lightning reads them.
"""

import logging
from collections.abc import Mapping
from copy import deepcopy
from importlib.metadata import version
from operator import attrgetter
from typing import Any
from weakref import WeakSet

from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from scdiff_data.loading import ResumableLoader
from scdiff_data.sampling import CellSampler, compare_orders
from scdiff_data.training.mending import mend

logger = logging.getLogger(__name__)

_PRIVATE = (
    "_checkpoint_connector._loaded_checkpoint",
    "fit_loop._combined_loader",
    "fit_loop._data_fetcher",
    "fit_loop._combined_loader_states_to_load",
    "fit_loop._load_combined_loader_states",
    "fit_loop.epoch_loop._should_check_val_fx",
    "fit_loop.epoch_loop.batch_progress.current.processed",
    "fit_loop.epoch_loop.batch_progress.is_last_batch",
    "fit_loop.epoch_loop.val_loop.batch_progress.current.completed",
)
"""What is read of a trainer beyond its public names."""

_EXPLANATION = (
    f"runs resume exactly with Lightning 2.6.6, and this is {version('lightning')}, which has no "
    "{name}: install 'lightning==2.6.6', or report it"
)
"""What to say of a Lightning that keeps its counters elsewhere."""

_KEPT = {"genes", "progress"}
"""What the state of a DataModule of ours has, whatever the name of its class."""

_LIGHTNING = {"state_dict", "loops", "callbacks", "hyper_parameters", "datamodule_hyper_parameters"}
"""What else a checkpoint keeps by names."""


def _check_lightning(trainer: Trainer) -> None:
    """Read every private name, before any of them is needed."""
    for name in _PRIVATE:
        try:
            attrgetter(name)(trainer)
        except AttributeError as error:
            raise RuntimeError(_EXPLANATION.format(name=f"trainer.{name}")) from error


class Bookmark:
    """Where a run is: what its checkpoints say of it, and where its next training loader starts."""

    def __init__(self) -> None:
        self._given: WeakSet[ResumableLoader] = WeakSet()
        self._loader: ResumableLoader | None = None
        self._place: dict[str, int] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Bookmark, ()  # a copy in another process follows loaders of its own

    def follow(self, loader: ResumableLoader, trainer: Trainer | None) -> ResumableLoader:
        """Follow a training loader, if the fit loop takes it; it starts where a checkpoint says.

        Others are given to callbacks and to users, and do not move the bookmark.

        Raises
        ------
        RuntimeError
            If this Lightning keeps its counters elsewhere: before training, not at its first
            checkpoint.
        """
        if trainer is not None:
            _check_lightning(trainer)
        if self._find_loader(trainer) is not None:
            self._place = None  # the fit loop's loader has started there
        self._given.add(loader)
        if self._place is not None:
            loader.load_state_dict(self._place)
        return loader

    def close(self) -> None:
        """Forget what was said of another run."""
        self._place = self._loader = None

    def _find_loader(self, trainer: Trainer | None) -> ResumableLoader | None:
        """The loader that the fit loop iterates, if it is one of those given."""
        combined = None if trainer is None else trainer.fit_loop._combined_loader
        loaders = [] if combined is None else combined.flattened
        ours = [loader for loader in loaders if isinstance(loader, ResumableLoader)]
        # One that Lightning built again, to overfit, is not among those given.
        return next((x for x in ours if x in self._given), next(iter(ours), None))

    def describe(self, trainer: Trainer | None) -> dict[str, Any] | None:
        """What a checkpoint keeps."""
        self._loader = self._find_loader(trainer) or self._loader
        if trainer is None or self._loader is None:
            return None
        return _describe(trainer, self._loader)

    def open(self, trainer: Trainer, state: Mapping[str, Any] | None, sampler: CellSampler) -> None:
        """Go on from what `describe` said, with the sampler of the run that does.

        What another checkpoint said before is forgotten.

        Raises
        ------
        ValueError
            If its order of cells is another one, in which the rest of an epoch has no meaning.
        """
        self.close()
        if state is None:
            return
        different = compare_orders(state["order"], sampler.order)
        if different and state["position"] and not state["is_exhausted"]:
            settings = "window_size and run_size (where they are 0, with shuffle=global)"
            way_out = (
                f"go on with its settings of the draw, seed, balance, {settings}, or"
                if state["order"].get("block_size", 1) == 1
                else "there is no block_size any more, so go on"
            )
            raise ValueError(
                "the checkpoint was written in the middle of an epoch in another order of cells "
                f"({', '.join(different)}): {way_out} from a checkpoint of an epoch's end"
            )
        # Lightning restores its loops after this, from the same dictionary. It restores the loader,
        # too, but not if `estimated_stepping_batches` was asked for before.
        progress = trainer._checkpoint_connector._loaded_checkpoint["loops"]["fit_loop"]
        try:
            place = mend(progress, state, sampler, trainer.limit_train_batches)
        except KeyError as error:
            raise RuntimeError(_EXPLANATION.format(name=f"loops.fit_loop[{error}]")) from error
        self._place = place
        if (loader := self._find_loader(trainer)) is not None:
            loader.load_state_dict(place)


def _describe(trainer: Trainer, loader: ResumableLoader) -> dict[str, Any]:
    """The epoch, the cells of it that the weights have seen, and what Lightning has yet to do.

    Cells count as seen once their gradients are applied. A batch that was only fetched does not
    count, nor do the batches of an unfinished accumulation: they are shown again.
    """
    loop: Any = trainer.fit_loop.epoch_loop  # its trackers are declared as ones of fewer stages
    counts, is_last = loop.batch_progress.current, loop.batch_progress.is_last_batch
    n_waiting = counts.ready - counts.processed
    if not (is_last and n_waiting == 0):
        n_waiting += counts.processed % trainer.accumulate_grad_batches
    state = loader.state_dict()
    n_cells = n_waiting * loader.own_sampler.global_batch_size
    return {
        "epoch": state["epoch"],
        "position": max(0, state["position"] - n_cells),
        "order": loader.own_sampler.order,
        "n_waiting": n_waiting,
        "is_exhausted": not loader.own_sampler.count_batches(state["position"]),
        "is_validation_due": _is_validation_due(trainer),
        "loader_at": _find_place(trainer, loader),
    }


def _find_place(trainer: Trainer, loader: ResumableLoader) -> int:
    """Which of the states that a checkpoint keeps of loaders is this one's."""
    combined: Any = trainer.fit_loop._combined_loader
    loaders = [] if combined is None else combined.flattened
    stateful = [one for one in loaders if hasattr(one, "state_dict")]
    return next((at for at, one in enumerate(stateful) if one is loader), 0)


def _is_validation_due(trainer: Trainer) -> bool:
    """Whether a validation comes next, or one has begun and is not over."""
    loop: Any = trainer.fit_loop.epoch_loop
    if trainer.validating:
        validated = loop.val_loop.batch_progress
        is_over = validated.current.completed == validated.current.ready
        return not (validated.is_last_batch and is_over)
    counts = loop.batch_progress.current
    if counts.completed == counts.processed:  # at a batch's last hook, they differ
        return False
    return bool(loop._should_check_val_fx(trainer.fit_loop._data_fetcher))


class Restorer(Callback):
    """Sees to what Lightning leaves out when it restores a DataModule.

    It looks for a state under the name of the DataModule's own class alone, and says nothing if it
    is not there: that of a parent, a subclass, or of the class before it was renamed would be lost.
    And a run that could not go on leaves a trainer with the checkpoint, or with its counts.

    Parameters
    ----------
    datamodule, bookmark
        Whose state to find, and what reads it.
    """

    def __init__(self, datamodule: LightningDataModule, bookmark: Bookmark) -> None:
        self._datamodule, self._bookmark = datamodule, bookmark
        self._counts: dict[str, Any] = {}

    def join(self, trainer: Any) -> None:
        """Be one of the callbacks of a trainer, if there is one and none of them does the same."""
        if trainer is None:
            return
        others = [one for one in trainer.callbacks if isinstance(one, Restorer)]
        if all(one._bookmark is not self._bookmark for one in others):
            trainer.callbacks.append(self)

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        """Keep what the trainer has counted until now."""
        del pl_module, stage
        self._counts = deepcopy(trainer.fit_loop.state_dict())

    def on_load_checkpoint(
        self, trainer: Any, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the state, or warn that there is none; Lightning's loops are restored later."""
        del pl_module
        own = type(self._datamodule).__qualname__
        named = {name: value for name, value in checkpoint.items() if isinstance(value, Mapping)}
        states = [name for name, value in named.items() if value.keys() >= _KEPT]
        if trainer.datamodule is not self._datamodule or own in states:
            return
        if states:
            logger.info("the state of %s was found under the name %s", own, states[0])
            self._datamodule.load_state_dict(checkpoint[states[0]])
        elif trainer.training:
            rank_zero_warn(
                f"the checkpoint keeps no place of a {own} (but states of "
                f"{sorted(named.keys() - _LIGHTNING)}): Lightning goes on by its own counts, and "
                "cells of the epoch at hand may come twice or not at all. Go on with the "
                "DataModule that wrote it, whose state_dict must hold that of super(), or load "
                "the weights alone into a new run, as model=pretrained does"
            )

    def on_train_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Restore loaders that `estimated_stepping_batches` made before the loops were restored."""
        del pl_module
        loop = trainer.fit_loop
        is_left = loop.restarting and loop._combined_loader_states_to_load
        if is_left and trainer.datamodule is self._datamodule:
            loop._load_combined_loader_states()
            iter(loop._data_fetcher)

    def on_exception(
        self, trainer: Any, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Forget a checkpoint, if no batch was trained on since."""
        del pl_module, exception
        if trainer.datamodule is not self._datamodule:
            return
        self._bookmark.close()
        trainer._checkpoint_connector._loaded_checkpoint = {}
        if trainer.fit_loop.epoch_loop.restarting:
            trainer.fit_loop.load_state_dict(self._counts)
            _start_afresh(trainer.fit_loop)


def _start_afresh(loop: Any) -> None:
    """Let a loop and those in it go by their counts, not as if a checkpoint was restored."""
    loop.on_iteration_done()
    for part in vars(loop).values():
        if hasattr(part, "on_iteration_done"):
            _start_afresh(part)
