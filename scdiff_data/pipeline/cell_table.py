"""The drawn cells as one table, in the order in which training numbers them.

One row a cell: `cell_id`, `experiment_id`, `archive_row`, `total_counts`, `n_genes`, the labels,
`split`, and its place in the shards, `shard` and `row`. Training cells come first, then validation,
then test, each shuffled; a row's place in the table is the cell's global row number.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from scdiff_data.archive import count_rows, read_obs
from scdiff_data.base import pick_by_hash
from scdiff_data.constants import SPLITS
from scdiff_data.pipeline.recipe import CELL_COLUMNS, Recipe
from scdiff_data.pipeline.split import assign_splits, check_sizes, check_values
from scdiff_data.sources import CatalogRow

logger = logging.getLogger(__name__)


def draw_cell_table(
    recipe: Recipe,
    archives: Mapping[str, Path],
    catalog: Mapping[str, CatalogRow],
) -> pa.Table:
    """Draw the cells, divide them into splits, and number them.

    Parameters
    ----------
    recipe
        What is wanted.
    archives
        Path of each experiment's archive, in the order of the draw.
    catalog
        Each experiment's row of the catalog: its columns serve as labels too.

    Returns
    -------
    cells
        The table above; texts other than `cell_id` are dictionaries with sorted values.

    Raises
    ------
    ValueError
        If neither cells nor catalog have a label, or a split comes out empty.
    """
    rule, names = recipe.split, recipe.columns
    frames, left = [], recipe.cell_count
    for experiment_id, path in archives.items():
        obs = read_obs(path)
        rows = np.arange(len(obs))
        if left is not None:
            rows = pick_by_hash(obs.index.to_list(), left, seed=recipe.seed, purpose="cells")
            left -= len(rows)
        frames.append(_experiment_frame(catalog[experiment_id], obs, rows, names))
    columns = {
        name: _join([frame[name] for frame in frames]) for name in (*CELL_COLUMNS[1:], *names)
    }
    columns["cell_id"] = pa.concat_arrays([frame["cell_id"] for frame in frames])
    for name in names:
        if columns[name].null_count == len(columns[name]):
            in_catalog = next(iter(catalog.values())).columns
            known = sorted({*obs.columns, *in_catalog} - set(CELL_COLUMNS))
            raise ValueError(
                f"no cell has a value for the label {name!r}; cells and catalog have {known}"
            )
    splits = assign_splits(rule, columns, seed=recipe.seed)
    if not rule.by_hash:
        check_values(rule, columns[rule.by])
    check_sizes(rule, np.bincount(splits, minlength=len(SPLITS)).tolist())
    order = _global_order(splits, seed=recipe.seed)
    columns["split"] = pa.DictionaryArray.from_arrays(splits, list(SPLITS))
    cells = pa.table(
        {name: columns[name] for name in (*CELL_COLUMNS, *recipe.labels, "split")}
    ).take(order)
    shard, row = np.divmod(np.arange(len(order), dtype=np.int32), recipe.shard_size)
    return cells.append_column("shard", pa.array(shard)).append_column("row", pa.array(row))


def split_experiment(
    recipe: Recipe, catalog_row: CatalogRow, obs: pd.DataFrame
) -> NDArray[np.int8]:
    """Split of each of an archive's cells, were all of them drawn: 0 train, 1 val, 2 test."""
    frame = _experiment_frame(catalog_row, obs, np.arange(len(obs)), recipe.columns)
    columns = {name: _join([values]) for name, values in frame.items() if name != "cell_id"}
    return assign_splits(recipe.split, columns | {"cell_id": frame["cell_id"]}, seed=recipe.seed)


def split_codes(cells: pa.Table) -> NDArray[np.int8]:
    """Each cell's split: 0 train, 1 val, 2 test."""
    codes: NDArray[np.int8] = cells["split"].combine_chunks().indices.to_numpy()
    return codes


def _global_order(splits: NDArray[np.int8], *, seed: int) -> NDArray[np.int64]:
    """Rows in the order of their global numbers: by split, each shuffled by the seed."""
    return np.concatenate(
        [
            np.random.default_rng([seed, code]).permutation(np.flatnonzero(splits == code))
            for code in range(len(SPLITS))
        ]
    )


def _experiment_frame(
    catalog_row: CatalogRow,
    obs: pd.DataFrame,
    rows: NDArray[np.int64],
    labels: Sequence[str],
) -> dict[str, pa.Array]:
    obs = obs.iloc[rows]
    frame = {
        "cell_id": pa.array(obs.index, pa.string()),
        "experiment_id": pa.array([catalog_row.experiment_id] * len(obs), pa.string()),
        "archive_row": pa.array(rows, pa.int64()),
        "total_counts": pa.array(obs["total_counts"], pa.int64()),
        "n_genes": pa.array(obs["n_genes"], pa.int32()),
    }
    for name in labels:
        of_all = catalog_row.columns.get(name)
        values = obs[name].to_numpy() if name in obs else [of_all] * len(obs)
        frame[name] = pa.array(values, from_pandas=True)
    return frame


def _join(parts: Sequence[pa.Array]) -> pa.Array:
    """One column of all experiments; texts as a dictionary with sorted values."""
    types = {part.type for part in parts if not pa.types.is_null(part.type)}
    if all(pa.types.is_integer(t) or pa.types.is_floating(t) for t in types):
        common = types.pop() if len(types) == 1 else pa.float64()
        return pa.concat_arrays([part.cast(common) for part in parts])
    texts = pa.concat_arrays([part.cast(pa.string()) for part in parts])
    values = pd.Categorical(texts.to_pandas())
    words = pa.array([str(word) for word in values.categories], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(values.codes, mask=values.codes < 0), words)


def splits_of_rows(
    cells: pa.Table, archives: Mapping[str, Path]
) -> list[tuple[str, NDArray[np.int8]]]:
    """Each experiment, and of each of its archive's rows the split, or -1 if it was not drawn."""
    experiment = cells["experiment_id"].combine_chunks()
    codes, names = experiment.indices.to_numpy(), experiment.dictionary.to_pylist()
    rows, splits = cells["archive_row"].to_numpy(), split_codes(cells)
    by_experiment = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[by_experiment], np.arange(len(names) + 1))
    found = []
    for name, start, stop in zip(names, bounds[:-1], bounds[1:], strict=True):
        drawn = by_experiment[start:stop]
        split_of_row = np.full(count_rows(archives[name]), -1, np.int8)
        split_of_row[rows[drawn]] = splits[drawn]
        found.append((name, split_of_row))
    return found
