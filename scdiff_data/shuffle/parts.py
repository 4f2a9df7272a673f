"""The same buckets, filled by workers elsewhere: each sorts some archives into files of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import Workers
from scdiff_data.executors import Crew, count_cores
from scdiff_data.shuffle.buckets import Buckets
from scdiff_data.shuffle.sorting import sort_cells

_PART_ROWS = 1 << 16
"""Rows of archives in a part at the least: each part has a file in every bucket."""

_PARTS_A_WORKER = 2
"""Parts at the most: a worker that is slow does one, and others the rest."""

_SORTED = "sorted"
"""The folder that a part's buckets lie in."""


@dataclass(frozen=True)
class PartJob:
    """What is sorted; it can be pickled.

    Parameters
    ----------
    n_rows, n_each, wanted
        See `Buckets` and `sort_cells`.
    rows
        A file of the arrays of rows, in the order of the archives.
    archives
        Path of each experiment's archive.
    gene_indices, fallback_min_genes, max_memory
        See `sort_cells`.
    n_threads
        Threads that sort.
    """

    n_rows: int
    n_each: int
    wanted: NDArray[np.bool_]
    rows: Path
    archives: Mapping[str, Path]
    gene_indices: NDArray[np.int64]
    fallback_min_genes: int
    max_memory: int
    n_threads: int


def sort_part(job: PartJob, folder: Path) -> None:
    """In a worker: fill buckets of its own."""
    buckets = Buckets(folder / _SORTED, "", n_rows=job.n_rows, n_each=job.n_each)
    buckets.open(job.wanted)
    with np.load(job.rows) as stored, Workers(min(job.n_threads, count_cores())) as workers:
        sort_cells(
            buckets,
            job.wanted,
            {name: stored[f"arr_{place}"] for place, name in enumerate(job.archives)},
            job.archives,
            job.gene_indices,
            fallback_min_genes=job.fallback_min_genes,
            max_memory=job.max_memory,
            workers=workers,
            report_cells=lambda _: None,
        )


def sort_elsewhere(
    buckets: Buckets,
    wanted: NDArray[np.bool_],
    rows: Mapping[str, NDArray[np.integer[Any]]],
    archives: Mapping[str, Path],
    gene_indices: NDArray[np.int64],
    *,
    fallback_min_genes: int,
    max_memory: int,
    crew: Crew,
    n_threads: int,
    report_cells: Callable[[int], object],
) -> None:
    """Fill the buckets by way of a crew; takes what `sort_cells` does."""
    parts = _divide(rows, crew.n_workers)
    jobs = []
    for number, names in enumerate(parts):
        # In a file: all of them together may be too much for a scheduler.
        path = crew.folder / f"rows_{number}.npz"
        np.savez(path, *(rows[name] for name in names))
        jobs.append(
            PartJob(
                n_rows=buckets.n_rows,
                n_each=buckets.n_each,
                wanted=wanted,
                rows=path,
                archives={name: archives[name].absolute() for name in names},
                gene_indices=gene_indices,
                fallback_min_genes=fallback_min_genes,
                max_memory=max_memory,
                n_threads=n_threads,
            )
        )
    for done in crew.run(sort_part, jobs, "sorting part"):
        done.move(done.folder / _SORTED, buckets.part(done.number))
        report_cells(sum(int((rows[name] >= 0).sum()) for name in parts[done.number]))


def _divide(rows: Mapping[str, NDArray[np.integer[Any]]], n_workers: int) -> list[list[str]]:
    """The experiments in parts of about as many rows, each in one part."""
    n_rows = sum(map(len, rows.values()))
    most = max(_PART_ROWS, -(-n_rows // (n_workers * _PARTS_A_WORKER)))
    parts: list[list[str]] = [[]]
    n = 0
    for name, of_archive in rows.items():
        if parts[-1] and n + len(of_archive) > most:
            parts.append([])
            n = 0
        parts[-1].append(name)
        n += len(of_archive)
    return parts
