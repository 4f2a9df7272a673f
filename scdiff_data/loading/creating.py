"""The two-line way to a loader: a directory's cells, in batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from numpy.typing import NDArray
from torch.utils.data import Dataset

from scdiff_data.loading.dataset import HVGDataset, ScRNADataset
from scdiff_data.loading.loader import ResumableLoader
from scdiff_data.loading.token_dataset import TokenDataset
from scdiff_data.sampling import CellSampler, check_ranks


def create_hvg_dataloader(
    folder: str | Path,
    batch_size: int = 128,
    *,
    split: str | None = "train",
    n_hvgs: int | None = None,
    labels: Sequence[str] | None = None,
    shuffle: bool | Literal["window", "global"] | None = None,
    seed: int = 0,
    window_size: int = 65_536,
    run_size: int = 256,
    balance: str | None = None,
    num_workers: int = 0,
    count_table: NDArray[Any] | None = None,
    num_replicas: int | None = None,
    rank: int | None = None,
) -> ResumableLoader:
    """Batches of the chosen genes from a prepared directory; of training cells, shuffled.

    Each iteration is another epoch, in another order.

    Parameters
    ----------
    folder, split, n_hvgs, labels
        As `HVGDataset`.
    batch_size
        Cells a batch.
    shuffle
        `window` (or True) or `global`, see `CellSampler`, and an incomplete last batch is left
        out; with False, cells come in the order of the rows, all of them. None shuffles what is
        trained on: no validation or test cells, unless they are balanced.
    seed
        Of the shuffle. `loader.sampler.set_epoch(epoch)` says which epoch comes.
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
    num_replicas, rank
        How many ranks share the cells, and which one this is. None: what Lightning or Fabric say
        that is given the loader, else torch's process group, else this process is the only one.
    """
    dataset = HVGDataset(folder, split=split, n_hvgs=n_hvgs, labels=labels)
    kind = _choose_shuffle(split, balance, shuffle=shuffle)
    order = _BatchOrder(batch_size, kind, seed, window_size, run_size, balance, num_replicas, rank)
    return _load(dataset, order, num_workers, count_table)


def create_dataloader(
    folder: str | Path,
    batch_size: int = 128,
    *,
    split: str | None = "train",
    sparse: bool = False,
    labels: Sequence[str] | None = None,
    shuffle: bool | Literal["window", "global"] | None = None,
    seed: int = 0,
    window_size: int = 65_536,
    run_size: int = 256,
    balance: str | None = None,
    num_workers: int = 0,
    num_replicas: int | None = None,
    rank: int | None = None,
) -> ResumableLoader:
    """Batches of all genes from a prepared directory; arguments as `create_hvg_dataloader`.

    `sparse` gives sparse CSR tensors instead of dense ones.
    """
    dataset = ScRNADataset(folder, split=split, sparse=sparse, labels=labels)
    kind = _choose_shuffle(split, balance, shuffle=shuffle)
    order = _BatchOrder(batch_size, kind, seed, window_size, run_size, balance, num_replicas, rank)
    return _load(dataset, order, num_workers)


class _BatchOrder(NamedTuple):
    """Which cells come together, and in which order."""

    batch_size: int
    shuffle: bool | Literal["window", "global"]
    seed: int
    window_size: int
    run_size: int
    balance: str | None
    num_replicas: int | None
    rank: int | None


def _choose_shuffle(
    split: str | None, balance: str | None, *, shuffle: bool | Literal["window", "global"] | None
) -> bool | Literal["window", "global"]:
    if shuffle is None:
        return "window" if split in (None, "train") or balance is not None else False
    return shuffle


def _load(
    cells: HVGDataset | ScRNADataset,
    order: _BatchOrder,
    num_workers: int,
    count_table: NDArray[Any] | None = None,
) -> ResumableLoader:
    check_ranks(order.num_replicas, order.rank)
    sampler = CellSampler(
        len(cells),
        order.batch_size,
        n_ranks=order.num_replicas,
        rank=order.rank,
        seed=order.seed,
        shuffle=order.shuffle,
        drop_last=bool(order.shuffle),
        window_size=order.window_size,
        run_size=order.run_size,
        classes=None if order.balance is None else cells.read_classes(order.balance),
        cells_key=cells.cells_key,
    )
    dataset: Dataset[Any] = cells
    if count_table is not None and isinstance(cells, HVGDataset):
        dataset = TokenDataset(cells, count_table)
    return ResumableLoader(dataset, sampler, num_workers=num_workers)
