"""A DataLoader that resumes."""

import sys
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any, cast

from torch import Generator
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from scdiff_data.loading.batches import CellBatch, TokenBatch
from scdiff_data.loading.read_ahead import ReadAhead
from scdiff_data.loading.token_dataset import read_batches
from scdiff_data.loading.worker_transport import PREFETCH, BatchGroupSampler, SharedSlots
from scdiff_data.sampling import (
    CellSampler,
    UndividedSampler,
    adopt_sampler,
    compare_orders,
)

_MESSAGE_BYTES = 2 << 20
"""Counts in a message from a worker, about: enough that its cost is small beside gathering them."""

_MOST_BATCHES = 16
"""Batches in a message, however small they are."""

_FABRIC = ("lightning.fabric.wrappers", "lightning_fabric.wrappers")
"""Where Fabric's wrapper of a loader iterates it, as a package of its own, too."""


class ResumableLoader(DataLoader[Any]):
    """A DataLoader whose state says how far its epoch has come, in cells of all ranks.

    Lightning saves and restores the state with its own checkpoints. Cells count as seen when the
    main process hands them out, not when a worker fetches them ahead. Nothing is drawn before the
    first batch is asked for, because Lightning makes the iterator before it sets the epoch.

    Each iteration is the next epoch, in another order, unless `loader.sampler.set_epoch` says which
    epoch comes: then it is that one until it is called again. What Fabric says is how often it has
    iterated the loader, which knows nothing of a restored state: then the loader counts by itself.

    Parameters
    ----------
    dataset
        Takes an array of row numbers as index and gives a batch.
    sampler
        Gives the row numbers. One that was not told its ranks learns them from Lightning or Fabric,
        else from torch's process group.
    num_workers, pin_memory, persistent_workers, multiprocessing_context
        As those of `DataLoader`. A worker sends several batches in one message: moving them between
        processes costs more than gathering them.
    shuffle, batch_sampler, own_sampler
        Left alone: what Lightning gives when it builds the loader again, see `adopt_sampler`.

    Raises
    ------
    ValueError
        If rows come from another sampler.
    """

    sampler: CellSampler

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: CellSampler | Sampler[Any],
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        multiprocessing_context: str | None = None,
        shuffle: bool | None = None,
        batch_sampler: Any = None,
        own_sampler: CellSampler | None = None,
    ) -> None:
        if batch_sampler is not None:
            raise ValueError("a ResumableLoader's batches are those of its sampler, got others")
        cells = adopt_sampler(sampler, own_sampler, is_built_again=shuffle is not None)
        super().__init__(
            dataset,
            batch_size=None,  # the sampler makes the batches
            sampler=cells if cells.has_ranks else UndividedSampler(cells),
            num_workers=num_workers,
            prefetch_factor=PREFETCH if num_workers else None,
            collate_fn=collate,
            pin_memory=pin_memory,
            persistent_workers=persistent_workers and num_workers > 0,
            multiprocessing_context=multiprocessing_context if num_workers else None,
            generator=Generator(),  # else every epoch takes a number from the global random state
        )
        self.seconds_waited = 0.0
        """How long batches were waited for, over all iterations."""
        self.own_sampler = cells
        self._epoch, self._position = cells.place or (0, 0)
        self._next_epoch = None if cells.place is None else cells.epoch
        batch_bytes = 2 * cells.batch_size * getattr(dataset, "n_genes", 1)
        n_batches = min(max(_MESSAGE_BYTES // batch_bytes, 1), _MOST_BATCHES)
        self._groups = BatchGroupSampler(cells, n_batches)
        self._group_bytes = n_batches * batch_bytes
        self._slots: SharedSlots | None = None
        # Lightning keeps the arguments of loaders that are made in a hook, and fails where a
        # sampler was given by position: without them it reads the attributes, as of any other.
        for name in ("args", "kwargs", "arg_names", "default_kwargs"):
            self.__dict__.pop(f"__pl_saved_{name}", None)

    @property
    def _index_sampler(self) -> Any:
        """What one call of the dataset, in a worker or here, is asked for; DataLoader reads it."""
        is_here = not self.num_workers
        batches = self.own_sampler if is_here else self._groups
        return ReadAhead(batches, self.own_sampler, self.dataset, gathers_here=is_here)

    def __repr__(self) -> str:
        return f"ResumableLoader({self.dataset!r}, {self.own_sampler!r})"

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.own_sampler)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches of the sampler's epoch, from where a restored state left it."""
        # Fabric calls `set_epoch` as a user would: only who iterates tells them apart.
        by_fabric = sys._getframe(1).f_globals.get("__name__") in _FABRIC
        return self._iterate(counts_epochs=by_fabric)

    def _iterate(self, *, counts_epochs: bool) -> Iterator[Any]:
        sampler = self.own_sampler
        if self._next_epoch is not None and (counts_epochs or not sampler.is_pinned):
            sampler.epoch = self._next_epoch
        epoch, position = sampler.place or (None, 0)
        sampler.start = position if epoch == sampler.epoch else 0
        sampler.place = None
        self._epoch, self._position = sampler.epoch, sampler.start
        self._next_epoch = sampler.epoch + 1
        ends = (end for _, end in sampler.global_batches())
        asked = perf_counter()
        for batch, end in zip(self._batches(), ends, strict=True):
            self._position = end
            self.seconds_waited += perf_counter() - asked
            yield batch
            asked = perf_counter()

    def _batches(self) -> Iterator[Any]:
        if self.num_workers:
            return self._receive()
        if self.pin_memory:
            return super().__iter__()
        # DataLoader's own loop costs as much as a fifth of a batch.
        return read_batches(self.dataset, self._index_sampler)

    def _receive(self) -> Iterator[Any]:
        """Batches from workers."""
        if self._iterator is None:  # workers are about to start, and keep their slots
            n_bytes = 0 if self.pin_memory else self._group_bytes  # pinned on their way, not here
            self.collate_fn = self._slots or SharedSlots(self.num_workers, n_bytes)
        # Another iteration must not use them before this one is over.
        slots, self._slots = cast("SharedSlots", self.collate_fn), None
        yield from slots.open(super().__iter__(), self._groups.cut())
        self._slots = slots

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and the cells of it that all ranks together were given; and in which order."""
        sampler = self.own_sampler
        position = self._position if sampler.epoch == self._epoch else 0
        return {
            "epoch": sampler.epoch,
            "position": position,
            "is_exhausted": sampler.count_batches(position) == 0,
            "order": sampler.order,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on from `state`, or where its epoch is over with the next one.

        If the sampler's epoch is set to another one before, that one starts afresh; if to that of
        `state`, nothing is left of it where it is over.

        Raises
        ------
        ValueError
            If it is from the middle of an epoch of other cells, or in another order.
        """
        sampler = self.own_sampler
        position = min(int(state["position"]), sampler.n_cells)
        is_over = sampler.count_batches(position) == 0
        if different := compare_orders(state.get("order", sampler.order), sampler.order):
            is_over = bool(state.get("is_exhausted", False))
            if position and not is_over:
                raise ValueError(
                    "the state is from the middle of an epoch in another order of cells "
                    f"({', '.join(different)}): restore it into a loader of the same data, split, "
                    "seed, shuffle and balance, or start the epoch afresh without it"
                )
        self._epoch, self._position = sampler.place = int(state["epoch"]), position
        self._next_epoch = sampler.epoch = self._epoch + is_over
        sampler.is_pinned = False


def collate(batch: Any, *, collate_fn_map: Any = None) -> Any:
    """A batch as the dataset assembled it: what a `DataLoader` of a dataset of ours does.

    It takes what `__getitems__` gives, a list of one batch; a list of single cells, as a dataset
    around ours gives them, such as torch's `ConcatDataset`, becomes a batch. torch's
    `default_collate` calls this for our batches, so that a loader needs not be told.
    """
    del collate_fn_map  # torch hands it on
    if not isinstance(batch, list):
        return batch
    first = batch[0]
    if len(batch) == 1 and first[0].ndim == 2:
        return first
    return type(first)(*(default_collate(list(part)) for part in zip(*batch, strict=True)))


default_collate_fn_map.update({CellBatch: collate, TokenBatch: collate})
