"""How far a run has come, as a checkpoint of Lightning's must say it for the run to go on exactly.

Lightning (2.6) saves its counters of epochs and batches. When a run goes on from these alone, it
skips

- an epoch, if the checkpoint was written at the last batch of the one before, or at its end;
- a validation that was due, or had begun;
- a batch that was fetched but not trained on;
- the rest of an epoch, if the batch size or the number of ranks has changed since.

A `Bookmark` is saved beside the counters, and sets them right before Lightning reads them.
"""

from collections.abc import Mapping
from importlib.metadata import version
from operator import attrgetter
from typing import Any
from weakref import WeakSet

from lightning import Trainer

from scdiff_data.loading import ResumableLoader
from scdiff_data.sampling import CellSampler, compare_orders

_STAGES = ("ready", "started", "processed", "completed")
"""What Lightning counts of every epoch and batch, in the order in which it happens."""

# What a checkpoint holds of the fit loop, `progress` below:
#
#     epoch_progress                       {current: counts, total: counts}
#     epoch_loop.batch_progress            {current: counts, total: counts, is_last_batch}
#     epoch_loop.val_loop.batch_progress   the same, of validation batches
#     epoch_loop.state_dict                {_batches_that_stepped}, which loggers count by
#     state_dict                           {combined_loader: [the loader's state]}
#
# `current` counts within the epoch and `total` over all; `counts` has four stages. Of batches, when
# 2 of 4 are trained on, and so the third would come next:
#
#     written                                   ready  started  processed  completed   waiting
#     in a hook at the end of batch 2             2       2         2          1           0
#     between the batches 2 and 3                 2       2         2          2           0
#     batch 3 is fetched, its step is not done    3       3         2          2           1
#
# `ready` of the current epoch is where Lightning goes on, so batches that wait are taken back. The
# batches of a run with other sizes are not those of this one: its counts are worked out anew, from
# the cells seen (`position`), which mean the same in every run.


_PRIVATE = (
    "_checkpoint_connector._loaded_checkpoint",
    "fit_loop._combined_loader",
    "fit_loop._data_fetcher",
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
        """Forget the place that a checkpoint said: another run starts."""
        self._place = None

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

    def open(self, trainer: Trainer, state: Mapping[str, Any], sampler: CellSampler) -> None:
        """Go on from what `describe` said, with the sampler of the run that does.

        Raises
        ------
        ValueError
            If its order of cells is another one, in which the rest of an epoch has no meaning.
        """
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
            place = _mend(progress, state, sampler, trainer.limit_train_batches)
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


def _mend(
    progress: dict[str, Any],
    state: Mapping[str, Any],
    sampler: CellSampler,
    limit_batches: float,
) -> dict[str, int]:
    """Set right what a checkpoint says of the fit loop, and give the loader's state.

    Parameters
    ----------
    progress
        The checkpoint's `loops.fit_loop`; changed in place.
    state
        What `_describe` said when the checkpoint was written.
    sampler
        That of the run that goes on.
    limit_batches
        Its `limit_train_batches`.
    """
    epochs, batches = progress["epoch_progress"], progress["epoch_loop.batch_progress"]
    validated = progress["epoch_loop.val_loop.batch_progress"]
    if validated["is_last_batch"] and validated["current"]["completed"]:
        # A validation that once went on from a checkpoint counts one batch too many for ever.
        for stage in _STAGES:
            validated["total"][stage] = validated["total"]["completed"]
    place = {"epoch": int(state["epoch"]), "position": int(state["position"])}
    epoch, counts = epochs["current"], batches["current"]
    # Done: the epoch's last batch was trained on, and nothing was fetched beyond it.
    is_done = batches["is_last_batch"] and counts["processed"] == counts["ready"]
    if epoch["started"] < epoch["ready"] or (is_done and epoch["processed"] == epoch["ready"]):
        # Between two epochs. Lightning would start the next one with the last one's counts, and
        # take it for done.
        for tracker in epochs.values():
            _set(tracker, tracker["processed"])
        _set(counts, 0)
        batches["is_last_batch"] = False
        place = {"epoch": epoch["processed"], "position": 0}
    elif counts["ready"]:
        # In an epoch; one that `max_steps` cut short is open again.
        for tracker in epochs.values():
            tracker["processed"] = tracker["completed"] = tracker["ready"] - 1
        n_batches, n_left = len(sampler), sampler.count_batches(place["position"])
        was_at_batch_end = counts["completed"] < counts["processed"]
        if is_done and was_at_batch_end and state["is_exhausted"] and n_left:
            # What was left were too few cells for a batch on every rank, and now are enough: the
            # epoch goes on, and its validation waits.
            is_done = batches["is_last_batch"] = False
            state = {**state, "is_validation_due": False}
        _mend_open_epoch(progress, state, is_done=is_done)
        if is_done or not n_left:
            # Nothing of the epoch is left: as many batches are done as this run's epochs have.
            n_limited = (
                min(limit_batches, n_batches)
                if isinstance(limit_batches, int)
                else int(limit_batches * n_batches)
            )
            _set(counts, n_limited)
            batches["is_last_batch"] = True
            place["position"] = sampler.n_cells
            if not is_done:
                _ask_for_validation(validated)
        else:
            # Lightning's batch number becomes that of the position in batches of this run.
            moved = n_batches - n_left - counts["ready"]
            for stage in _STAGES:
                counts[stage] += moved
    # A module may train on several loaders; the others' states are their own.
    states = list(progress["state_dict"].get("combined_loader") or [place])
    states[state.get("loader_at", 0)] = place
    progress["state_dict"]["combined_loader"] = states
    return place


def _mend_open_epoch(progress: dict[str, Any], state: Mapping[str, Any], *, is_done: bool) -> None:
    batches, n_waiting = progress["epoch_loop.batch_progress"], state["n_waiting"]
    was_at_batch_end = batches["current"]["completed"] < batches["current"]["processed"]
    if n_waiting or is_done or state["is_validation_due"]:
        for tracker in (batches["current"], batches["total"]):
            _set(tracker, tracker["ready"] - n_waiting)
        batches["is_last_batch"] = is_done
    if state["is_validation_due"]:
        _ask_for_validation(progress["epoch_loop.val_loop.batch_progress"])
    elif is_done and was_at_batch_end:
        # Lightning adds this step to what its loggers count after the batch's last hook.
        progress["epoch_loop.state_dict"]["_batches_that_stepped"] += 1


def _ask_for_validation(validated: dict[str, Any]) -> None:
    """Let Lightning believe that a validation was cut off: it then starts with a whole one."""
    _set(validated["current"], 0)
    validated["total"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validated["is_last_batch"] = False


def _set(tracker: dict[str, int], n: int) -> None:
    tracker |= dict.fromkeys(_STAGES, n)
