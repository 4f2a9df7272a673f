"""Lightning's counters of a checkpoint, set right before Lightning reads them."""

from collections.abc import Mapping
from typing import Any

from scdiff_data.sampling import CellSampler

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


def mend(
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
        What `Bookmark.describe` said when the checkpoint was written.
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
        n_limited = (
            min(limit_batches, n_batches)
            if isinstance(limit_batches, int)
            else int(limit_batches * n_batches)
        )
        was_at_batch_end = counts["completed"] < counts["processed"]
        if is_done and was_at_batch_end and state["is_exhausted"] and n_left:
            # What was left were too few cells for a batch on every rank, and now are enough: the
            # epoch goes on, and its validation waits.
            is_done = batches["is_last_batch"] = False
            state = {**state, "is_validation_due": False}
        if not is_done and n_batches - n_left >= n_limited:
            # As many batches are done as this run's epochs have: what comes next is a validation.
            is_done, state = True, {**state, "is_validation_due": True}
        _mend_open_epoch(progress, state, is_done=is_done)
        if is_done:
            _set(counts, n_limited)
            batches["is_last_batch"] = True
            place["position"] = sampler.n_cells
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
