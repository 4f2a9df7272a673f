"""Archives in, shards out, in one pass: an external shuffle."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from scdiff_data.base import Workers
from scdiff_data.executors import Crew, count_cores
from scdiff_data.shards.contents import (
    ID_COLUMNS,
    OWN_COLUMNS,
    ShardGenes,
    ShardWriter,
    read_key,
)
from scdiff_data.shards.formats import ShardFormat, count_bytes, stamp
from scdiff_data.shuffle import HEADER_BYTES, Buckets, sort_cells, sort_elsewhere
from scdiff_data.store import DataDirectory, DrawnCells


def write_shards(
    directory: DataDirectory,
    cells: DrawnCells,
    archives: Mapping[str, Path],
    genes: ShardGenes,
    *,
    labels: Sequence[str],
    shard_size: int,
    shard_format: ShardFormat,
    fallback_min_genes: int = 0,
    key: str,
    n_threads: int = 1,
    max_memory: int = 1 << 30,
    crew: Crew | None = None,
    report_sorted: Callable[[int], object] = lambda _: None,
    report_cells: Callable[[int], object] = lambda _: None,
) -> list[Path]:
    """Write all shards; one that an interrupted run finished, under the same key, stays.

    The archives are read once, from front to back. Their cells are sorted into buckets on disk,
    and from each bucket come its shards.

    Parameters
    ----------
    directory
        Where they go; shards there of another key are deleted.
    cells
        The drawn cells and their table, which has the labels.
    archives
        Path of every experiment's archive.
    genes
        The chosen genes.
    labels
        Columns of the table to keep.
    shard_size
        Cells a shard.
    shard_format
        How counts lie.
    fallback_min_genes
        Of cells that express fewer of the chosen genes, empty places take other genes, see
        `fill_empty`; 0 never does.
    key
        Fingerprint of everything that decides the shards' content.
    n_threads
        Threads that sort, and shards written at a time.
    max_memory
        Bytes that all threads together may take, about.
    crew
        Who sorts and writes elsewhere; None does it here, in threads.
    report_sorted
        Called with the number of cells that were read from an archive.
    report_cells
        Called with the number of cells of each finished shard.
    """
    key = stamp(key, shard_format)
    n_cells = len(cells)
    paths = [directory.shard(number) for number in range(-(-n_cells // shard_size))]
    kept = {path for path in paths if read_key(path) == key}
    for stale in directory.find_shards() - kept:
        stale.unlink()
    row_bytes = _expect_row_bytes(genes, n_cells) + 10 * fallback_min_genes
    n_each = max(1, max_memory // 4 // (row_bytes * shard_size)) * shard_size
    buckets = Buckets(directory.sorting, key, n_rows=n_cells, n_each=n_each)
    runs = [
        paths[first // shard_size :][: n_each // shard_size] for first in range(0, n_cells, n_each)
    ]
    wanted = np.array([not kept.issuperset(run) for run in runs])

    columns = _CellColumns(cells.path, [*OWN_COLUMNS, *labels])
    job = BucketJob(
        writer=ShardWriter(
            genes,
            {name: cells.words.get(name) for name in labels},
            {name: columns.longest(name) for name in ID_COLUMNS},
            shard_size=shard_size,
            shard_format=shard_format,
            has_fallback=fallback_min_genes > 0,
            key=key,
        ),
        sorting=directory.sorting.absolute(),
        cells=cells.path.absolute(),
        columns=(*OWN_COLUMNS, *labels),
        n_rows=n_cells,
        n_each=n_each,
        shard_size=shard_size,
        n_threads=n_threads,
    )
    how: dict[str, Any] = {"fallback_min_genes": fallback_min_genes, "max_memory": max_memory // 4}
    what = buckets, wanted, cells.rows, archives, genes.indices
    jobs = [
        replace(job, bucket=bucket, run=tuple(None if path in kept else path.name for path in run))
        for bucket, run in enumerate(runs)
    ]
    report_cells(sum(job.count(i) for job in jobs for i, name in enumerate(job.run) if not name))
    jobs = [job for job in jobs if wanted[job.bucket]]
    if crew is None:
        with Workers(n_threads) as workers:  # while one waits for the disk, another works
            if not buckets.open(wanted):
                sort_cells(*what, **how, workers=workers, report_cells=report_sorted)
                buckets.finish()
            for job in jobs:
                write_bucket(job, directory.shards, workers, report_cells)
                buckets.drop(job.bucket)
    else:
        if not buckets.open(wanted):
            sort_elsewhere(*what, **how, crew=crew, n_threads=n_threads, report_cells=report_sorted)
            buckets.finish()
        for done in crew.run(write_in_worker, jobs, "writing shards of bucket"):
            job = jobs[done.number]
            for place, name in enumerate(job.run):
                if name is not None:
                    done.move(done.folder / name, directory.shards / name)
                    report_cells(job.count(place))
            buckets.drop(job.bucket)
    buckets.remove()
    return paths


@dataclass(frozen=True)
class BucketJob:
    """A bucket whose shards are written; it can be pickled.

    Parameters
    ----------
    writer
        Writes a shard.
    sorting, n_rows, n_each
        The buckets, see `Buckets`.
    cells, columns
        The table of cells, and what shards have of it.
    shard_size
        Cells a shard.
    n_threads
        Shards written at a time.
    bucket, run
        Which bucket, and the names of its shards; None for one that is there.
    """

    writer: ShardWriter
    sorting: Path
    n_rows: int
    n_each: int
    cells: Path
    columns: tuple[str, ...]
    shard_size: int
    n_threads: int
    bucket: int = 0
    run: tuple[str | None, ...] = ()

    def count(self, place: int) -> int:
        """Cells of one of its shards."""
        first = self.bucket * self.n_each + place * self.shard_size
        return min(self.shard_size, self.n_rows - first)


def write_bucket(
    job: BucketJob, folder: Path, workers: Workers, report_cells: Callable[[int], object]
) -> None:
    """Write the shards of a bucket into a folder."""
    buckets = Buckets(job.sorting, "", n_rows=job.n_rows, n_each=job.n_each)
    columns = _CellColumns(job.cells, job.columns)
    n_cells = sum(map(job.count, range(len(job.run))))
    records, table = buckets.read(job.bucket), columns.read(job.bucket * job.n_each, n_cells)

    def write(place: int) -> None:
        name, start, n = job.run[place], place * job.shard_size, job.count(place)
        if name is not None:
            part = table.slice(start, n)
            job.writer.write(folder / name, part, records.take(slice(start, start + n)))
            report_cells(n)

    workers.map(write, range(len(job.run)))


def write_in_worker(job: BucketJob, folder: Path) -> None:
    """In a worker: the same."""
    with Workers(min(job.n_threads, count_cores())) as workers:
        write_bucket(job, folder, workers, lambda _: None)


class _CellColumns:
    """Columns of the table of cells, read by ranges of rows, in their order.

    Parameters
    ----------
    path
        The table, Parquet.
    names
        The columns.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._file = pq.ParquetFile(path)
        self._names = list(names)
        metadata = self._file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def read(self, start: int, n: int) -> pa.Table:
        """Rows `start` … `start + n - 1`."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        last = int(np.searchsorted(self._starts, start + n))
        table = self._file.read_row_groups(range(first, last), columns=self._names)
        return table.slice(start - int(self._starts[first]), n)

    def longest(self, name: str) -> int:
        """Bytes of a column's longest text."""
        return max(
            int(pc.max(pc.binary_length(batch[name].cast(pa.string()))).as_py())
            for batch in self._file.iter_batches(columns=[name])
        )


def _expect_row_bytes(genes: ShardGenes, n_cells: int) -> int:
    """Bytes that a cell takes in its bucket, about."""
    n_genes = len(genes.indices)
    size = count_bytes("compact", n_cells=n_cells, n_genes=n_genes, n_values=genes.n_values)
    return HEADER_BYTES + size // n_cells + n_genes // 128
