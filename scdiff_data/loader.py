"""A DataLoader that resumes, and the two-line way to one."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Generator
from torch.utils.data import DataLoader, Dataset

from scdiff_data.dataset import HVGDataset, ScRNADataset
from scdiff_data.sampler import CellSampler


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
        As those of `DataLoader`.
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
            collate_fn=collate,
            pin_memory=pin_memory,
            persistent_workers=persistent_workers and num_workers > 0,
            multiprocessing_context=multiprocessing_context if num_workers else None,
            generator=Generator(),  # else every epoch takes a number from the global random state
        )
        self._restored: dict[str, int] | None = None
        self._position = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Batches of the sampler's epoch, from where a restored state left it."""
        sampler = self.sampler
        restored, self._restored = self._restored, None
        at_epoch = restored is not None and restored["epoch"] == sampler.epoch
        sampler.start = restored["position"] if restored is not None and at_epoch else 0
        self._position = sampler.start
        steps = sampler.global_batches()
        batches: Iterator[Any] = super().__iter__()
        if not (self.num_workers or self.pin_memory):  # DataLoader's own loop costs half a batch
            batches = map(self.dataset.__getitem__, sampler)
        for batch, (_, end) in zip(batches, steps, strict=True):
            self._position = end
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the cells of it that all ranks together were given."""
        return {"epoch": self.sampler.epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Let the next iteration go on from `state`, if it is one of the same epoch."""
        self._restored = {"epoch": int(state["epoch"]), "position": int(state["position"])}


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
    num_workers
        Worker processes; 0 is fastest unless the trainer itself is busy.
    """
    dataset = HVGDataset(folder, split=split, n_hvgs=n_hvgs, labels=labels)
    sampler = CellSampler(len(dataset), batch_size, seed=seed, shuffle=shuffle, drop_last=shuffle)
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
    num_workers: int = 0,
) -> ResumableLoader:
    """Batches of all genes from a prepared directory; arguments as `create_hvg_dataloader`.

    `sparse` gives sparse CSR tensors instead of dense ones.
    """
    dataset = ScRNADataset(folder, split=split, sparse=sparse, labels=labels)
    sampler = CellSampler(len(dataset), batch_size, seed=seed, shuffle=shuffle, drop_last=shuffle)
    return ResumableLoader(dataset, sampler, num_workers=num_workers)
