"""Gene statistics on disk: made once, right after an archive is, and merged ever after.

They are kept for each experiment and split, so choosing genes again reads no cells, and nothing of
the validation or test cells leaks into the choice.
"""

import hashlib
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import Workers, write_aside
from scdiff_data.executors import Crew, count_cores
from scdiff_data.genes.sums import BySplit, GeneStatistics, count_above, sum_genes
from scdiff_data.telling import Progress

_DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, RuntimeError, SyntaxError),
    *(zipfile.BadZipFile, struct.error, zlib.error),
)
"""What reading statistics raises that are not there, or whose bytes were changed."""


class TrainingGenes:
    """Gene statistics of the drawn training cells, by batch, and those cells for a second pass.

    Parameters
    ----------
    splits
        Of each experiment's archive rows the split, 0 train, 1 val, 2 test, or -1 if not drawn.
    archives, checksums
        Path and checksum of each experiment's archive.
    paths
        Where each experiment's statistics are kept. Only of an experiment whose drawn cells or
        splits changed are cells read again.
    batch_of
        Each experiment's batch.
    workers
        What an archive's cells are divided among.

    Attributes
    ----------
    batches
        Statistics of each batch's training cells, by its name; experiments are added in the order
        of their ids, so float sums are the same to the last bit.
    n_expressing
        Drawn cells of all splits that express each gene, int64 [n_genes].
    """

    def __init__(
        self,
        splits: Mapping[str, NDArray[np.int8]],
        archives: Mapping[str, Path],
        checksums: Mapping[str, str],
        paths: Mapping[str, Path],
        batch_of: Mapping[str, str],
        workers: Workers,
    ) -> None:
        self._archives = archives
        self._workers = workers
        self._rows: dict[str, list[tuple[str, NDArray[np.int64]]]] = {}
        self.batches: dict[str, GeneStatistics] = {}
        keys = {name: key_of(checksums[name], codes) for name, codes in splits.items()}
        missing = [name for name in splits if not is_stored(paths[name], keys[name])]
        missing.sort(key=lambda name: -archives[name].stat().st_size)  # threads end together
        with Progress("sum genes", "experiments", len(missing)) as progress:
            # An archive a thread; of one alone, its cells are divided among all.
            each = workers if len(missing) == 1 else Workers(1)

            def write(name: str) -> None:
                by_split = sum_genes(archives[name], splits[name], each)
                write_statistics(paths[name], keys[name], by_split)
                progress.add()

            (Workers(1) if len(missing) == 1 else workers).map(write, missing)
        expressing: list[NDArray[np.int64]] = []
        for name, split_of_row in splits.items():
            try:
                by_split = read_statistics(paths[name])
            except _DAMAGE:
                write(name)
                by_split = read_statistics(paths[name])
            expressing = [reduce(add, [s.n_expressing for s in by_split.values()], *expressing)]
            if "train" in by_split:
                rows = np.flatnonzero(split_of_row == 0)
                self._add(batch_of[name], by_split["train"], name, rows)
        self.n_expressing = expressing[0]

    def _add(self, batch: str, part: GeneStatistics, name: str, rows: NDArray[np.int64]) -> None:
        known = self.batches.get(batch)
        self.batches[batch] = part if known is None else known + part
        self._rows.setdefault(batch, []).append((name, rows))

    @property
    def all(self) -> GeneStatistics:
        """Statistics of all training cells."""
        return reduce(add, self.batches.values())

    def count_above(self, batch: str, thresholds: NDArray[np.int16]) -> NDArray[np.int64]:
        """Of a batch's counts above their gene's threshold: number, Σx and Σx²; [3, n_genes]."""
        return reduce(
            add,
            (
                count_above(self._archives[name], rows, thresholds, self._workers)
                for name, rows in self._rows[batch]
            ),
        )


@dataclass(frozen=True)
class SumJob:
    """An archive whose genes are summed; it can be pickled.

    Parameters
    ----------
    archive, split_of_row
        Its path, and what `sum_genes` takes.
    key
        What the sums depend on.
    n_threads
        Threads that sum.
    """

    archive: Path
    split_of_row: NDArray[np.int8]
    key: str
    n_threads: int


_SUMS = "sums.npz"
"""The file that a worker writes."""


def sum_in_worker(job: SumJob, folder: Path) -> None:
    """In a worker: sum an archive's genes."""
    with Workers(min(job.n_threads, count_cores())) as workers:
        by_split = sum_genes(job.archive, job.split_of_row, workers)
    write_statistics(folder / _SUMS, job.key, by_split)


def sum_elsewhere(
    splits: Mapping[str, NDArray[np.int8]],
    archives: Mapping[str, Path],
    checksums: Mapping[str, str],
    paths: Mapping[str, Path],
    *,
    crew: Crew,
    n_threads: int,
) -> None:
    """Make what `TrainingGenes` would lack, which takes the same, by way of a crew."""
    keys = {name: key_of(checksums[name], codes) for name, codes in splits.items()}
    missing = [name for name in splits if not is_stored(paths[name], keys[name])]
    jobs = [
        SumJob(archives[name].absolute(), splits[name], keys[name], n_threads) for name in missing
    ]
    with Progress("sum genes", "experiments", len(missing)) as progress:
        for done in crew.run(sum_in_worker, jobs, "summing genes of archive"):
            done.move(done.folder / _SUMS, paths[missing[done.number]])
            progress.add()


def key_of(checksum: str, split_of_row: NDArray[np.int8]) -> str:
    """What an experiment's statistics depend on: its archive's checksum, and its cells' splits."""
    return f"{checksum}:{hashlib.sha256(split_of_row.tobytes()).hexdigest()}"


def is_stored(path: Path, key: str) -> bool:
    """Whether an experiment's statistics are there, under the same key and not cut short."""
    try:
        # np.load leaves a file open that it cannot read when it opens it by itself
        with path.open("rb") as file, np.load(file) as stored:
            return str(stored["key"]) == key
    except _DAMAGE:
        return False


def read_statistics(path: Path) -> BySplit:
    """Read what `write_statistics` wrote."""
    with np.load(path) as stored:
        return {
            str(split): GeneStatistics(int(n_cells), *whole, *real)
            for split, n_cells, whole, real in zip(
                stored["splits"], stored["n_cells"], stored["whole"], stored["real"], strict=True
            )
        }


def write_statistics(path: Path, key: str, by_split: BySplit) -> None:
    """Write an npz: `splits`, `n_cells`, `whole` int64 [s, 3, n_genes], `real` float64 [s, 4, …].

    Their columns are the fields of `GeneStatistics` in their order.
    """
    columns = [[getattr(s, f.name) for f in fields(s)] for s in by_split.values()]
    with write_aside(path) as aside, aside.open("wb") as file:
        np.savez(
            file,
            key=np.array(key),
            splits=np.array(list(by_split)),
            n_cells=np.array([c[0] for c in columns]),
            whole=np.array([c[1:4] for c in columns]),
            real=np.array([c[4:] for c in columns]),
        )
