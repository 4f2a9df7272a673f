"""A DataLoader that resumes, and the two-line way to one."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple, cast

from numpy.typing import NDArray
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from scdiff_data.loading.dataset import HVGDataset, ScRNADataset, TokenDataset
from scdiff_data.loading.read_ahead import ReadAhead
from scdiff_data.loading.worker_transport import PREFETCH, BatchGroupSampler, SharedSlots
from scdiff_data.sampling import CellSampler

_MESSAGE_BYTES = 2 << 20
"""Counts in a message from a worker, about: enough that its cost is small beside gathering them."""

_MOST_BATCHES = 16
"""Batches in a message, however small they are."""


class ResumableLoader(DataLoader[Any]):
    """A DataLoader whose state says how far its epoch has come, in cells of all ranks.

    Lightning saves and restores the state with its own checkpoints. Cells count as seen when the
    main process hands them out, not when a worker fetches them ahead. Nothing is drawn before the
    first batch is asked for, because Lightning makes the iterator before it sets the epoch.

    Parameters
    ----------
    dataset
        Takes an array of row numbers as index and gives a batch.
    sampler
        Gives the row numbers.
    num_workers, pin_memory, persistent_workers, multiprocessing_context
        As those of `DataLoader`. A worker sends several batches in one message: moving them between
        processes costs more than gathering them.
    """

    sampler: CellSampler

    def __init__(
        self,
        dataset: Dataset[Any],
        sampler: CellSampler,
        *,
        num_workers: int = 0,
        pin_memory: bool = False,
        persistent_workers: bool = False,
        multiprocessing_context: str | None = None,
    ) -> None:
        super().__init__(
            dataset,
            batch_size=None,  # the sampler makes the batches
            sampler=sampler,
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
        self._epoch = 0
        self._position = 0
        self._is_restored = False
        batch_bytes = 2 * sampler.batch_size * getattr(dataset, "n_genes", 1)
        n_batches = min(max(_MESSAGE_BYTES // batch_bytes, 1), _MOST_BATCHES)
        self._groups = BatchGroupSampler(sampler, n_batches)
        self._group_bytes = n_batches * batch_bytes
        self._slots: SharedSlots | None = None

    @property
    def _index_sampler(self) -> Any:
        """What one call of the dataset, in a worker or here, is asked for; DataLoader reads it."""
        is_here = not self.num_workers
        batches = self.sampler if is_here else self._groups
        return ReadAhead(batches, self.sampler, self.dataset, gathers_here=is_here)

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches of the sampler's epoch, from where a restored state left it."""
        sampler = self.sampler
        goes_on = self._is_restored and self._epoch == sampler.epoch
        sampler.start = self._position if goes_on else 0
        self._epoch = sampler.epoch
        self._position = sampler.start
        self._is_restored = False
        ends = (end for _, end in sampler.global_batches())
        asked = perf_counter()
        for batch, end in zip(self._batches(), ends, strict=True):
            self._position = end
            self.seconds_waited += perf_counter() - asked
            yield batch
            asked = perf_counter()

    def _batches(self) -> Iterator[Any]:
        if self.num_workers:
            return self._groups.split(self._receive())
        if self.pin_memory:
            return super().__iter__()
        # DataLoader's own loop costs as much as a fifth of a batch.
        return map(self.dataset.__getitem__, self._index_sampler)

    def _receive(self) -> Iterator[Any]:
        """Groups of batches from workers."""
        if self._iterator is None:  # workers are about to start, and keep their slots
            n_bytes = 0 if self.pin_memory else self._group_bytes  # pinned on their way, not here
            self.collate_fn = self._slots or SharedSlots(self.num_workers, n_bytes)
        # Another iteration must not use them before this one is over.
        slots, self._slots = cast("SharedSlots", self.collate_fn), None
        yield from slots.open(super().__iter__())
        self._slots = slots

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the cells of it that all ranks together were given."""
        epoch = self.sampler.epoch
        return {"epoch": epoch, "position": self._position if epoch == self._epoch else 0}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let the next iteration go on from `state`, or where its epoch is over with the next one.

        If the sampler's epoch is set to another one before, that one starts afresh; if to that of
        `state`, nothing is left of it where it is over.
        """
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._is_restored = True
        is_over = self.sampler.count_batches(self._position) == 0
        self.sampler.set_epoch(self._epoch + is_over)


def collate(batch: Any) -> Any:
    """Leave a batch as the dataset assembled it; for `DataLoader(dataset, collate_fn=collate)`."""
    return batch


def create_hvg_dataloader(
    folder: str | Path,
    batch_size: int = 128,
    *,
    split: str | None = "train",
    n_hvgs: int | None = None,
    labels: Sequence[str] | None = None,
    shuffle: bool | Literal["window", "global"] = "window",
    seed: int = 0,
    window_size: int = 65_536,
    run_size: int = 256,
    balance: str | None = None,
    num_workers: int = 0,
    count_table: NDArray[Any] | None = None,
) -> ResumableLoader:
    """Batches of the chosen genes from a prepared directory, shuffled anew each epoch.

    Parameters
    ----------
    folder, split, n_hvgs, labels
        As `HVGDataset`.
    batch_size
        Cells a batch.
    shuffle
        `window` (or True) or `global`, see `CellSampler`, and an incomplete last batch is left
        out; with False, cells come in the order of the rows, all of them.
    seed
        Of the shuffle; call `loader.sampler.set_epoch(epoch)` for another order.
    window_size, run_size
        Rows of a window and of its runs, see `CellSampler`.
    balance
        A label, or `experiment_id`: cells are drawn with replacement, each of its values as often
        as any other. A missing value counts as one.
    num_workers
        Worker processes; 0 is fastest unless the trainer itself is busy.
    count_table
        What each count becomes, such as a tokenizer's `count_table`: batches are then a
        `TokenBatch`, their tokens as narrow as the table's.
    """
    dataset = HVGDataset(folder, split=split, n_hvgs=n_hvgs, labels=labels)
    order = _BatchOrder(batch_size, shuffle, seed, window_size, run_size, balance)
    return _load(dataset, order, num_workers, count_table)


def create_dataloader(
    folder: str | Path,
    batch_size: int = 128,
    *,
    split: str | None = "train",
    sparse: bool = False,
    labels: Sequence[str] | None = None,
    shuffle: bool | Literal["window", "global"] = "window",
    seed: int = 0,
    window_size: int = 65_536,
    run_size: int = 256,
    balance: str | None = None,
    num_workers: int = 0,
) -> ResumableLoader:
    """Batches of all genes from a prepared directory; arguments as `create_hvg_dataloader`.

    `sparse` gives sparse CSR tensors instead of dense ones.
    """
    dataset = ScRNADataset(folder, split=split, sparse=sparse, labels=labels)
    order = _BatchOrder(batch_size, shuffle, seed, window_size, run_size, balance)
    return _load(dataset, order, num_workers)


class _BatchOrder(NamedTuple):
    """Which cells come together, and in which order."""

    batch_size: int
    shuffle: bool | Literal["window", "global"]
    seed: int
    window_size: int
    run_size: int
    balance: str | None


def _load(
    cells: HVGDataset | ScRNADataset,
    order: _BatchOrder,
    num_workers: int,
    count_table: NDArray[Any] | None = None,
) -> ResumableLoader:
    sampler = CellSampler(
        len(cells),
        order.batch_size,
        seed=order.seed,
        shuffle=order.shuffle,
        drop_last=bool(order.shuffle),
        window_size=order.window_size,
        run_size=order.run_size,
        classes=None if order.balance is None else cells.read_classes(order.balance),
    )
    dataset: Dataset[Any] = cells
    if count_table is not None and isinstance(cells, HVGDataset):
        dataset = TokenDataset(cells, count_table)
    return ResumableLoader(dataset, sampler, num_workers=num_workers)
