"""The drawn cells as one table, in the order in which training numbers them.

One row a cell: `cell_id`, `experiment_id`, `archive_row`, `total_counts`, `n_genes`, the labels,
`split`, and its place in the shards, `shard` and `row`. Training cells come first, then validation,
then test, each shuffled; a row's place in the table is the cell's global row number.

The table never stands in memory. The archives' cells are read twice, some at a time: once to know
words and splits, and once to send the rows to their places.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scdiff_data.archive import LabelSurvey, ObsReader, check_ids, read_label
from scdiff_data.base import keyed_hash, write_aside
from scdiff_data.constants import SPLITS
from scdiff_data.recipes import CELL_COLUMNS, Recipe, check_sizes, check_values
from scdiff_data.shuffle import TableSorter
from scdiff_data.sources import CatalogRow
from scdiff_data.store import DataDirectory, DrawnCells
from scdiff_data.telling import Progress

_CHUNK_CELLS = 1 << 16
"""Cells read at a time."""

_GROUP_CELLS = 1 << 17
"""Cells of a row group of the table."""

Rows = NDArray[np.integer[Any]]
"""Rows of an archive."""


def draw_cells(
    recipe: Recipe,
    directory: DataDirectory,
    archives: Mapping[str, Path],
    catalog: Mapping[str, CatalogRow],
) -> DrawnCells:
    """Draw the cells, divide them into splits, number them, and write their table.

    Parameters
    ----------
    recipe
        What is wanted.
    directory
        Where the table goes.
    archives
        Path of each experiment's archive, in the order of the draw.
    catalog
        Each experiment's row of the catalog: its columns serve as labels too.

    Raises
    ------
    ValueError
        If two cells have the same id, neither cells nor catalog have a label, or a split comes out
        empty.
    """
    check_ids(archives)
    drawn = _draw_rows(recipe, archives)
    grows = recipe.cell_count is not None
    survey = LabelSurvey(recipe.columns, fixed=recipe.label_words, grows=grows)
    _survey(survey, archives, catalog, drawn)
    if survey.empty:
        with ObsReader(archives[next(reversed(drawn))]) as obs:
            own = {*obs.columns, *next(iter(catalog.values())).columns} - set(CELL_COLUMNS)
        raise ValueError(
            f"no cell has a value for the label {survey.empty[0]!r}; cells and catalog have "
            f"{sorted(own)}: set labels to columns that are there, or to []"
        )
    splits = _assign_splits(recipe, survey, archives, catalog, drawn)
    sizes = np.bincount(splits, minlength=len(SPLITS)).tolist()
    check_sizes(recipe.split, sizes)
    places = _place(splits, sizes, seed=recipe.seed)
    rows_of = _rows_of_archives(archives, drawn, places)
    n_experiments = [
        sum(bool((splits[part] == code).any()) for part in _parts(drawn)) for code in range(3)
    ]
    cells = DrawnCells(
        path=directory.cells,
        n_cells=dict(zip(SPLITS, sizes, strict=True)),
        n_experiments=dict(zip(SPLITS, n_experiments, strict=True)),
        rows={name: rows_of[name] for name in sorted(rows_of)},
        words={name: survey.words[name] for name in recipe.labels if name in survey.words},
    )
    _write_table(recipe, directory, cells, survey, archives, catalog, drawn)
    pa.default_memory_pool().release_unused()  # it keeps more of it the more cells there are
    return cells


def split_archive(recipe: Recipe, catalog_row: CatalogRow, path: Path) -> NDArray[np.int8]:
    """Split of each of an archive's cells, were all of them drawn: 0 train, 1 val, 2 test."""
    name = catalog_row.experiment_id
    archives, catalog = {name: path}, {name: catalog_row}
    with ObsReader(path) as obs:
        drawn: dict[str, Rows] = {name: np.arange(len(obs))}
    rule = recipe.split
    is_label = not rule.by_hash and rule.by != "experiment_id"
    survey = LabelSurvey([rule.by] if is_label else [])
    if is_label:
        _survey(survey, archives, catalog, drawn)
    return _assign_splits(recipe, survey, archives, catalog, drawn, is_all=False)


def _survey(
    survey: LabelSurvey,
    archives: Mapping[str, Path],
    catalog: Mapping[str, CatalogRow],
    drawn: Mapping[str, Rows],
) -> None:
    """Look at all labels of all drawn cells."""
    for name, obs, rows in _read_chunks(archives, drawn):
        survey.look(name, (obs, catalog[name].columns, rows))
    if survey.mixed:
        for name, obs, rows in _read_chunks(archives, drawn):
            survey.look_again(name, (obs, catalog[name].columns, rows))
    survey.finish()


def _draw_rows(recipe: Recipe, archives: Mapping[str, Path]) -> dict[str, Rows]:
    """Of each experiment the archive's rows that are drawn: all, but of the one that cuts off."""
    drawn: dict[str, Rows] = {}
    left = recipe.cell_count
    numbers: Rows = np.arange(0, dtype=np.int32)  # which all archives share
    for name, path in archives.items():
        with ObsReader(path) as obs:
            n = len(obs)
            if n > len(numbers):
                numbers = np.arange(n, dtype=np.int32 if n < 2**31 else np.int64)
            rows = numbers[:n]
            if left is not None and left < n:
                hashes = [
                    keyed_hash(
                        obs.read_ids(start, start + _CHUNK_CELLS), seed=recipe.seed, purpose="cells"
                    )
                    for start in range(0, n, _CHUNK_CELLS)
                ]
                rows = np.sort(np.argsort(np.concatenate(hashes), kind="stable")[:left])
        if left is not None:
            left -= len(rows)
        if len(rows):
            drawn[name] = rows
    return drawn


def _read_chunks(
    archives: Mapping[str, Path], drawn: Mapping[str, Rows]
) -> Iterator[tuple[str, ObsReader, Rows]]:
    """Experiment, its open archive, and some of its drawn rows, ascending; in the order drawn."""
    with Progress("cells", "cells", sum(map(len, drawn.values()))) as progress:
        for name, rows in drawn.items():
            with ObsReader(archives[name]) as obs:
                for start in range(0, len(rows), _CHUNK_CELLS):
                    yield name, obs, rows[start : start + _CHUNK_CELLS]
            progress.add(len(rows))


def _parts(drawn: Mapping[str, Rows]) -> list[slice]:
    """Where each experiment's cells stand among all that are drawn."""
    ends = np.cumsum([len(rows) for rows in drawn.values()]).tolist()
    return [slice(end - len(rows), end) for end, rows in zip(ends, drawn.values(), strict=True)]


def _read_ids(obs: ObsReader, rows: Rows) -> list[str]:
    """Ids of some rows."""
    first = int(rows[0])
    ids = obs.read_ids(first, int(rows[-1]) + 1)
    return ids if len(ids) == len(rows) else [ids[row - first] for row in rows.tolist()]


def _assign_splits(
    recipe: Recipe,
    survey: LabelSurvey,
    archives: Mapping[str, Path],
    catalog: Mapping[str, CatalogRow],
    drawn: Mapping[str, Rows],
    *,
    is_all: bool = True,
) -> NDArray[np.int8]:
    """Each drawn cell's split: 0 train, 1 val, 2 test."""
    rule, splits = recipe.split, np.zeros(sum(map(len, drawn.values())), np.int8)
    if rule.by == "experiment":
        codes = rule.assign_by_hash(list(drawn), seed=recipe.seed)
        for code, part in zip(codes, _parts(drawn), strict=True):
            splits[part] = code
        return splits
    at, known = 0, set()
    for name, obs, rows in _read_chunks(archives, drawn):
        if rule.by == "cell":
            found = rule.assign_by_hash(_read_ids(obs, rows), seed=recipe.seed)
        elif rule.by == "experiment_id":
            found = rule.assign_by_value([name] * len(rows))
            known.add(name)
        else:
            values = survey.unify(rule.by, read_label(obs, catalog[name].columns, rule.by, rows))
            found = rule.assign_by_value(values.to_pylist())
            known |= set(values.unique().to_pylist())
        splits[at : at + len(rows)] = found
        at += len(rows)
    if is_all and not rule.by_hash:
        check_values(rule, known)
    return splits


def _place(splits: NDArray[np.int8], sizes: list[int], *, seed: int) -> NDArray[Any]:
    """Each drawn cell's global row: splits one after another, each shuffled by the seed."""
    n = len(splits)
    order = np.empty(n, np.int32 if n < 2**31 else np.int64)
    ends = np.cumsum(sizes)
    at = [end - size for end, size in zip(ends.tolist(), sizes, strict=True)]
    for start in range(0, n, _CHUNK_CELLS):
        part = splits[start : start + _CHUNK_CELLS]
        for code in range(len(SPLITS)):
            found = start + np.flatnonzero(part == code)
            order[at[code] : at[code] + len(found)] = found
            at[code] += len(found)
    for code, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        np.random.default_rng([seed, code]).shuffle(order[end - size : end])
    places = np.empty_like(order)
    for start in range(0, n, _CHUNK_CELLS):
        cells = order[start : start + _CHUNK_CELLS]
        places[cells] = np.arange(start, start + len(cells))
    return places


def _rows_of_archives(
    archives: Mapping[str, Path], drawn: Mapping[str, Rows], places: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Of each experiment's archive rows the global row, -1 if it is not drawn."""
    found = {}
    for (name, rows), part in zip(drawn.items(), _parts(drawn), strict=True):
        with ObsReader(archives[name]) as obs:
            found[name] = np.full(len(obs), -1, places.dtype)
        found[name][rows] = places[part]
    return found


def _write_table(
    recipe: Recipe,
    directory: DataDirectory,
    cells: DrawnCells,
    survey: LabelSurvey,
    archives: Mapping[str, Path],
    catalog: Mapping[str, CatalogRow],
    drawn: Mapping[str, Rows],
) -> None:
    names = list(cells.rows)
    code_type = pa.from_numpy_dtype(pd.Categorical.from_codes([], pd.Index(names)).codes.dtype)
    codes, names = {name: code for code, name in enumerate(names)}, pa.array(names, pa.string())
    types = {
        "cell_id": pa.large_string(),  # a table of them passes the 2 GiB that short ones can have
        "experiment_id": pa.dictionary(code_type, pa.string()),
        "archive_row": pa.int64(),
        "total_counts": pa.int64(),
        "n_genes": pa.int32(),
    }
    types |= {name: survey.types[name] for name in recipe.labels}
    own = {"total_counts": pa.int64(), "n_genes": pa.int32()}
    sizes = np.cumsum(list(cells.n_cells.values()))
    with TableSorter(
        directory.ordering, pa.schema(types), n_rows=len(cells), n_each=_GROUP_CELLS
    ) as sorter:
        for name, obs, rows in _read_chunks(archives, drawn):
            first, last, n = int(rows[0]), int(rows[-1]) + 1, len(rows)
            code = pa.array(np.full(n, codes[name]), code_type)
            columns = {
                "cell_id": pa.array(_read_ids(obs, rows), pa.large_string()),
                "experiment_id": pa.DictionaryArray.from_arrays(code, names),
                "archive_row": pa.array(rows, pa.int64()),
                **{k: pa.array(obs.read(k, first, last)[rows - first], t) for k, t in own.items()},
                **{
                    k: survey.unify(k, read_label(obs, catalog[name].columns, k, rows))
                    for k in recipe.labels
                },
            }
            sorter.add(pa.table(columns, schema=pa.schema(types)), cells.rows[name][rows])
        with write_aside(cells.path) as aside:
            writer: pq.ParquetWriter | None = None
            for start, part in sorter.read():
                place = np.arange(start, start + len(part))
                split = np.searchsorted(sizes, place, side="right").astype(np.int8)
                shard, row = np.divmod(place, recipe.shard_size)
                part = (
                    part.set_column(0, "cell_id", part["cell_id"].cast(pa.string()))
                    .append_column("split", pa.DictionaryArray.from_arrays(split, list(SPLITS)))
                    .append_column("shard", pa.array(shard, pa.int32()))
                    .append_column("row", pa.array(row, pa.int32()))
                )
                writer = writer or pq.ParquetWriter(
                    aside, part.schema, compression="zstd", write_page_checksum=True
                )
                writer.write_table(part, row_group_size=_GROUP_CELLS)
            if writer is not None:
                writer.close()
