"""A DataLoader that resumes, and the two-line way to one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Generator
from torch.utils.data import DataLoader, Dataset

from scdiff_data.dataset import HVGDataset, ScRNADataset
from scdiff_data.messages import BatchRuns, RunSampler, split_run
from scdiff_data.sampler import CellSampler

_MESSAGE_BYTES, _MOST_BATCHES = 8 << 20, 16


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
    on_restore
        Called when a state is restored, with the numbers of this loader's batches that were seen
        and that are left of the epoch, which change with the number of ranks and the batch size.
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
        on_restore: Callable[[int, int], None] | None = None,
    ) -> None:
        how: dict[str, Any] = {
            "batch_size": None,  # the sampler makes the batches
            "num_workers": num_workers,
            "collate_fn": collate,
            "pin_memory": pin_memory,
            "persistent_workers": persistent_workers and num_workers > 0,
            "multiprocessing_context": multiprocessing_context if num_workers else None,
            "generator": Generator(),  # else an epoch takes a number from the global random state
        }
        super().__init__(dataset, sampler=sampler, **how)
        self._restored: dict[str, int] | None = None
        self._position, self._on_restore = 0, on_restore
        self._runs: DataLoader[Any] | None = None
        if num_workers:
            batch_bytes = 2 * sampler.batch_size * getattr(dataset, "n_genes", 1)
            n_batches = min(max(_MESSAGE_BYTES // batch_bytes, 1), _MOST_BATCHES)
            self._runs = DataLoader(
                BatchRuns(dataset), sampler=RunSampler(sampler, n_batches), **how
            )

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches of the sampler's epoch, from where a restored state left it."""
        sampler = self.sampler
        restored, self._restored = self._restored, None
        at_epoch = restored is not None and restored["epoch"] == sampler.epoch
        sampler.start = restored["position"] if restored is not None and at_epoch else 0
        self._position = sampler.start
        for batch, (_, end) in zip(self._batches(), sampler.global_batches(), strict=True):
            self._position = end
            yield batch

    def _batches(self) -> Iterator[Any]:
        if self._runs is not None:
            for run in self._runs:
                yield from split_run(run)
        elif self.pin_memory:
            yield from super().__iter__()
        else:  # DataLoader's own loop costs as much as a fifth of a batch
            yield from map(self.dataset.__getitem__, self.sampler)

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the cells of it that all ranks together were given."""
        return {"epoch": self.sampler.epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let the next iteration go on from `state`, if it is one of the same epoch."""
        self._restored = {"epoch": int(state["epoch"]), "position": int(state["position"])}
        if self._on_restore is not None:
            n_left = self.sampler.count_batches(self._restored["position"])
            self._on_restore(len(self) - n_left, n_left)


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
    shuffle: bool = True,
    seed: int = 0,
    block_size: int = 1,
    balance: str | None = None,
    num_workers: int = 0,
) -> ResumableLoader:
    """Batches of the chosen genes from a prepared directory, shuffled anew each epoch.

    Parameters
    ----------
    folder, split, n_hvgs, labels
        As `HVGDataset`.
    batch_size
        Cells a batch.
    shuffle
        Whether cells are shuffled and an incomplete last batch is left out; else they come in the
        order of the rows, all of them.
    seed
        Of the shuffle; call `loader.sampler.set_epoch(epoch)` for another order.
    block_size
        Neighbouring cells that stay together when shuffled; above 1 for disks that hate random
        reads.
    balance
        A label, or `experiment_id`: cells are drawn with replacement, each of its values as often
        as any other. A missing value counts as one.
    num_workers
        Worker processes; 0 is fastest unless the trainer itself is busy.
    """
    dataset = HVGDataset(folder, split=split, n_hvgs=n_hvgs, labels=labels)
    sampler = CellSampler(
        len(dataset),
        batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=shuffle,
        block_size=block_size,
        classes=None if balance is None else dataset.read_classes(balance),
    )
    return ResumableLoader(dataset, sampler, num_workers=num_workers)


def create_dataloader(
    folder: str | Path,
    batch_size: int = 128,
    *,
    split: str | None = "train",
    sparse: bool = False,
    labels: Sequence[str] | None = None,
    shuffle: bool = True,
    seed: int = 0,
    block_size: int = 1,
    balance: str | None = None,
    num_workers: int = 0,
) -> ResumableLoader:
    """Batches of all genes from a prepared directory; arguments as `create_hvg_dataloader`.

    `sparse` gives sparse CSR tensors instead of dense ones.
    """
    dataset = ScRNADataset(folder, split=split, sparse=sparse, labels=labels)
    sampler = CellSampler(
        len(dataset),
        batch_size,
        seed=seed,
        shuffle=shuffle,
        drop_last=shuffle,
        block_size=block_size,
        classes=None if balance is None else dataset.read_classes(balance),
    )
    return ResumableLoader(dataset, sampler, num_workers=num_workers)
