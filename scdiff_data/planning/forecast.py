"""How far a draw goes, and what it takes on the network and on disk, before any cell is fetched.

The catalog knows how many cells a file holds, not how many pass QC; records of earlier runs do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scdiff_data.base import cut, describe_number
from scdiff_data.constants import SPLITS
from scdiff_data.planning.reach import Reach
from scdiff_data.reading import GeneAxis
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.shards import ShardFormat, choose_format, count_bytes
from scdiff_data.sources import Rows, layout_of
from scdiff_data.store import DataDirectory, ExperimentRecord, Records

PASSING = 0.72
"""Fraction of scBaseCount's cells that pass QC at 300 genes and 500 counts; taken for any data,
until records of earlier runs tell better."""

_FILE_CELL_BYTES = 12_600
"""Compressed bytes a cell of scBaseCount's files; taken where the catalog gives no size."""

_ARCHIVED_CELL_BYTES = 16_000
"""Bytes a cell of scBaseCount's archives; taken until there are records."""

_LARGEST_GROWTH = 3
"""Bytes of an archive to one of its file, at most: compressed, a count and its gene take 2 or more
bytes there, and 6 in the archive."""

_CELL_BYTES = 64
"""Bytes of a cell in the shards beside its counts: ids, totals, labels."""

_NAME_BYTES = 95
"""Bytes of a gene's id and symbol, which each archive has."""

_SUM_BYTES = 56
"""Bytes of what a gene adds up to, in each split of an experiment: seven numbers."""

_N_GENES = 36_601
"""Human genes in scBaseCount; taken until there is a reference axis."""


@dataclass(frozen=True)
class DrawForecast:
    """How far the draw goes, if a certain fraction of the cells passes QC.

    Parameters
    ----------
    n_experiments, n_cells
        Experiments tried, and cells drawn from them.
    n_per_split
        Of these cells, how many go to `train`, `val` and `test`; None if a column decides.
    fetch_bytes
        Bytes still to be fetched.
    peak_bytes, end_bytes
        Bytes on disk of the whole data directory, at the most and at the end.
    new_bytes
        Bytes that the disk must have free to get to the peak.
    least_bytes
        The same, if files have few genes: how many they have may not be known yet.
    shard_format, shard_bytes
        The format that shards get, and their bytes in each.
    costs
        What the settings cost, in bytes, the most first.
    """

    n_experiments: int
    n_cells: int
    n_per_split: dict[str, int] | None
    fetch_bytes: int
    peak_bytes: int
    end_bytes: int
    new_bytes: int
    least_bytes: int
    shard_format: ShardFormat
    shard_bytes: dict[ShardFormat, int]
    costs: Sequence[tuple[int, str]]


class Forecast:
    """The candidates in the order of the draw, with what earlier runs know of them.

    Parameters
    ----------
    recipe
        What is wanted.
    directory
        Where records and downloads of earlier runs are.
    candidates
        The catalog's rows that the draw is from.
    options
        How it is done: what is there at once, stays or is tried again.

    Attributes
    ----------
    passing
        Fraction of cells that is likely to pass QC.
    """

    def __init__(
        self,
        recipe: Recipe,
        directory: DataDirectory,
        candidates: pa.Table,
        options: PrepareOptions,
    ) -> None:
        self._recipe = recipe
        self._options = options
        rows = Rows(candidates)
        self._order = order = rows.draw(recipe.seed)
        self._reach = Reach(
            candidates,
            order,
            recipe.max_cells_per_experiment,
            is_in_place=layout_of(recipe.source).in_place,
            cell_bytes=_FILE_CELL_BYTES,
        )
        self._records: dict[int, ExperimentRecord] = {}
        self._n_genes, self._knows_genes = _N_GENES, False
        if (axis := GeneAxis.find(directory.genes)) is not None:
            self._knows_genes = True
            self._n_genes = len(axis)
            there = order.find(path.stem for path in directory.archives.glob("*.json"))
            records = Records(directory, recipe.archive_key, retry_failed=options.retry_failed)
            for place in sorted(there.values()):
                if record := records.find(order[place], axis):
                    self._records[place] = record
        self._reach.know({place: record.n_cells for place, record in self._records.items()})
        fetched = {
            path.name.removesuffix(".part").removesuffix(".h5ad"): path.stat().st_size
            for path in directory.downloads.glob("*.h5ad*")
        }
        self._fetched = {place: fetched[name] for name, place in order.find(fetched).items()}
        reports = [r.report for r in self._records.values() if r.report is not None]
        n_read = sum(report.n_cells_in_file for report in reports)
        n_archived = sum(report.n_cells for report in reports)
        quality = recipe.quality
        filters = any(v for v in (quality.min_genes, quality.min_counts, quality.max_genes))
        self.passing = PASSING if filters else 1.0
        if n_read:
            self.passing = sum(report.n_cells_passing for report in reports) / n_read
        self._cell_bytes = _ARCHIVED_CELL_BYTES
        in_files = self._reach.source_bytes
        if in_files is not None and len(order):
            most = _LARGEST_GROWTH * in_files // max(int(self._reach.n_in_files.sum()), 1)
            self._cell_bytes = min(_ARCHIVED_CELL_BYTES, most)
        if n_archived:
            sizes = [n for n in map(_archive_bytes, self._records.values()) if n]
            of_cells = sum(sizes) - len(sizes) * _NAME_BYTES * self._n_genes
            self._cell_bytes = max(of_cells // n_archived, 1)

    def count_cells(self) -> int:
        """Cells that there are at most, if all of those in unknown files pass QC."""
        return self._reach.count(1.0)

    def draw(self, passing: float) -> DrawForecast:
        """How far the draw goes, and what it takes, if a fraction of unknown cells passes QC."""
        n_threads = self._options.n_threads
        recipe, wanted = self._recipe, self._recipe.cell_count
        n_tried, available = self._reach.draw(passing, wanted)
        n_drawn = available if wanted is None else min(available, wanted)

        files = self._reach.sum_files(passing, n_tried, n_threads + 2)
        fetched = self._fetched.items()
        there = sum(size for p, size in fetched if p < n_tried and p not in self._records)
        sums = _SUM_BYTES * self._n_genes * self._n_splits
        each = _NAME_BYTES * self._n_genes + sums
        archives = available * self._cell_bytes
        tried = (record for place, record in self._records.items() if place < n_tried)
        archived = sum(size + sums for size in map(_archive_bytes, tried) if size)
        n_genes = recipe.n_kept or self._n_genes
        by_format = {
            name: count_bytes(name, n_cells=n_drawn, n_genes=n_genes) + n_drawn * _CELL_BYTES
            for name in get_args(ShardFormat)
        }
        shard_format = choose_format(recipe.shard_format, n_cells=n_drawn, n_genes=n_genes)
        shards, sorting = by_format[shard_format], by_format["compact"]
        kept = files.n_bytes if self._options.keep_downloads else 0
        at_rest = archives + n_tried * each
        end = at_rest + shards + kept
        peak = max(end + sorting, at_rest + files.window)
        given = recipe.genes is not None
        genes = f"genes={recipe.n_kept} names" if given else f"n_hvgs={_text(recipe.n_hvgs)}"
        costs = [
            (archives, f"cell_count={_text(wanted)}: the archive of all genes"),
            (
                n_tried * each,
                f"{describe_number(n_tried, 'experiment')}: the names and sums of genes",
            ),
            (shards, f"{genes}: the shards"),
            (sorting, "cells on their way into the shards, gone at the end"),
            (0 if kept else files.window, f"n_threads={n_threads}: source files there at once"),
            (kept, "keep_downloads=true: source files that stay"),
            (
                files.over_cap,
                f"max_cells_per_experiment={recipe.max_cells_per_experiment}: fetched for cells "
                "over the cap",
            ),
        ]
        return DrawForecast(
            n_experiments=n_tried,
            n_cells=n_drawn,
            n_per_split=self._split_sizes(passing, n_tried, n_drawn),
            fetch_bytes=max(0, files.n_bytes - there),
            peak_bytes=peak,
            end_bytes=end,
            new_bytes=max(0, peak - archived - there),
            least_bytes=max(
                0, peak - archived - there - (0 if self._knows_genes else n_tried * each)
            ),
            shard_format=shard_format,
            shard_bytes=by_format,
            costs=sorted((cost for cost in costs if cost[0]), reverse=True),
        )

    @property
    def _n_splits(self) -> int:
        """Splits that an experiment's cells are in."""
        rule = self._recipe.split
        return 1 + sum(1 for part in (rule.val, rule.test) if part) if rule.by == "cell" else 1

    def _split_sizes(self, passing: float, n_tried: int, n_drawn: int) -> dict[str, int] | None:
        """Cells of each split, where hashes of the experiments or fractions of the cells decide."""
        rule = self._recipe.split
        if rule.by == "cell":
            parts = [round(n_drawn * float(f)) for f in (rule.val, rule.test)]  # type: ignore[arg-type]
            return dict(zip(SPLITS, (n_drawn - sum(parts), *parts), strict=True))
        if rule.by != "experiment":
            return None
        codes, n_splits = self._split_codes, len(SPLITS)
        sizes = self._reach.sum_splits(passing, n_tried, n_drawn, codes, n_splits)
        return {name: round(size) for name, size in zip(SPLITS, sizes, strict=True)}

    @cached_property
    def _split_codes(self) -> NDArray[np.int8]:
        """Each experiment's split, where the hash of its id decides."""
        rule, seed = self._recipe.split, self._recipe.seed
        parts = cut(self._order.rows.ids)
        codes = [rule.assign_by_hash(part.to_pylist(), seed=seed) for part in parts]
        of_all: NDArray[np.int8] = np.concatenate([np.empty(0, np.int8), *codes])
        return of_all[self._order.places]


def _archive_bytes(record: ExperimentRecord) -> int:
    return 0 if record.file is None else record.file.size


def _text(value: int | None) -> str:
    return "null" if value is None else str(value)
