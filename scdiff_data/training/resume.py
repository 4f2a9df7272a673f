"""How far a run has come, as a checkpoint of Lightning's must say it for the run to go on exactly.

Lightning (2.6) saves its counters of epochs and batches, but from several places they lead it
astray: past an epoch whose last batch, or whose end, was when the checkpoint was written; past a
validation that was due; past a batch that was fetched but not trained on; and, as it counts batches
of the old size and number of ranks, past the rest of an epoch when these have changed. A
`Bookmark` is saved beside the counters, and sets them right before Lightning reads them.
"""

from collections.abc import Mapping
from typing import Any

from lightning import Trainer

from scdiff_data.loading import CellSampler, ResumableLoader

_STAGES = ("ready", "started", "processed", "completed")
"""What Lightning counts of every epoch and batch, in the order in which it happens."""


class Bookmark:
    """Where a run is: what its checkpoints say of it, and where its next training loader starts."""

    def __init__(self) -> None:
        self._loader: ResumableLoader | None = None
        self._place: dict[str, int] | None = None

    def follow(self, loader: ResumableLoader) -> ResumableLoader:
        """Follow a training loader from now on; it starts where a checkpoint was opened."""
        self._loader, place, self._place = loader, self._place, None
        if place is not None:
            loader.load_state_dict(place)
        return loader

    def describe(self, trainer: Trainer | None) -> dict[str, Any] | None:
        """What a checkpoint keeps."""
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
        there, here = state["order"], sampler.order
        different = [f"{k}: {there[k]} there, {here[k]} here" for k in here if there[k] != here[k]]
        if different and state["position"] and not state["is_exhausted"]:
            raise ValueError(
                "the checkpoint was written in the middle of an epoch in another order of cells "
                f"({', '.join(different)}): go on with its settings of the draw, block_size, "
                "balance and seed, or from a checkpoint of an epoch's end"
            )
        # Lightning restores its loops after this, from the same dictionary. It would restore the
        # loader itself, but not if `estimated_stepping_batches` was asked for before.
        progress = trainer._checkpoint_connector._loaded_checkpoint["loops"]["fit_loop"]
        place = self._place = _mend(progress, state, sampler, trainer.limit_train_batches)
        if self._loader is not None:
            self._loader.load_state_dict(place)


def _describe(trainer: Trainer, loader: ResumableLoader) -> dict[str, Any]:
    """The epoch, the cells of it that the weights have seen, and what of Lightning's is pending.

    Cells count as seen once their gradients are applied: neither a batch that was only fetched nor
    those of an unfinished accumulation do. All of them are shown again.
    """
    loop: Any = trainer.fit_loop.epoch_loop  # its trackers are declared as ones of fewer stages
    counts, is_last = loop.batch_progress.current, loop.batch_progress.is_last_batch
    n_waiting = counts.ready - counts.processed
    if not (is_last and n_waiting == 0):
        n_waiting += counts.processed % trainer.accumulate_grad_batches
    state = loader.state_dict()
    n_cells = n_waiting * loader.sampler.global_batch_size
    return {
        "epoch": state["epoch"],
        "position": max(0, state["position"] - n_cells),
        "order": loader.sampler.order,
        "n_waiting": n_waiting,
        "is_exhausted": not loader.sampler.count_batches(state["position"]),
        "is_validation_due": _is_validation_due(trainer),
    }


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
    is_done = batches["is_last_batch"] and counts["processed"] == counts["ready"]
    if epoch["started"] < epoch["ready"] or (is_done and epoch["processed"] == epoch["ready"]):
        # Between two epochs. Lightning would run the next one on the last one's counts: it is done.
        for tracker in epochs.values():
            _set(tracker, tracker["processed"])
        _set(counts, 0)
        batches["is_last_batch"] = False
        place = {"epoch": epoch["processed"], "position": 0}
    elif counts["ready"]:
        for tracker in epochs.values():  # an epoch that `max_steps` cut short is open again
            tracker["processed"] = tracker["completed"] = tracker["ready"] - 1
        n_batches, n_left = len(sampler), sampler.count_batches(place["position"])
        was_at_batch_end = counts["completed"] < counts["processed"]
        if is_done and was_at_batch_end and state["is_exhausted"] and n_left:
            # Too few cells for a batch of all ranks then, enough for one now: validation waits.
            is_done = batches["is_last_batch"] = False
            state = {**state, "is_validation_due": False}
        _mend_open_epoch(progress, state, is_done=is_done)
        if is_done or not n_left:
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
            moved = n_batches - n_left - counts["ready"]
            for stage in _STAGES:
                counts[stage] += moved
    progress["state_dict"]["combined_loader"] = [place]
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
    """Let Lightning believe that a validation was interrupted: it then starts with a whole one."""
    _set(validated["current"], 0)
    validated["total"] |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    validated["is_last_batch"] = False


def _set(tracker: dict[str, int], n: int) -> None:
    tracker |= dict.fromkeys(_STAGES, n)
