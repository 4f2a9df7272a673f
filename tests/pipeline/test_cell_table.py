"""The table of drawn cells is written in streams, and is what one made in memory would be."""

import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data import Recipe, SimulatedAtlas
from scdiff_data.archive.obs import ObsReader
from scdiff_data.base.hashing import pick_by_hash
from scdiff_data.base.hdf5_writing import write_frame
from scdiff_data.pipeline import cell_table
from scdiff_data.pipeline.cell_table import draw_cells, split_archive
from scdiff_data.shuffle import tables
from scdiff_data.sources.rows import CatalogRow
from scdiff_data.store.drawn_cells import DrawnCells
from scdiff_data.store.layout import DataDirectory

Frames = dict[str, pd.DataFrame]
"""Cells of some experiments, in the order of the draw."""


def make_recipe(**changes: Any) -> Recipe:
    given = {"labels": ["word", "number", "tissue"], "split": {"by": "cell"}, "shard_size": 5}
    return Recipe(source=SimulatedAtlas(), **(given | changes))


def make_frames(sizes: list[int], *, mixed: bool) -> Frames:
    frames = {}
    for number, n in enumerate(sizes):
        name, rng = f"E{9 - number}", np.random.default_rng(number)
        words = pd.Categorical.from_codes(rng.integers(-1, 3, n), ["b cell", "a cell", "c cell"])
        numbers: Any = rng.integers(0, 9, n) if number else rng.random(n)
        frames[name] = pd.DataFrame(
            {
                "total_counts": rng.integers(500, 9_000, n),
                "n_genes": rng.integers(300, 4_000, n),
                "word": words,
                "number": [f"n{i}" for i in range(n)] if mixed and number == 1 else numbers,
            },
            index=pd.Index([f"{name}_{i}" for i in range(n)], dtype=object),
        )
    return frames


def draw(recipe: Recipe, frames: Frames, folder: Path) -> DrawnCells:
    """Archives that hold cells alone, and the cells drawn from them."""
    archives, catalog = {}, {}
    for name, frame in frames.items():
        archives[name] = folder / f"{name}.h5ad"
        with h5py.File(archives[name], "w") as file:
            file.create_group("X").attrs["shape"] = np.array([len(frame), 1])
            write_frame(file, "obs", frame)
        tissue = {"tissue": f"tissue {name}"}
        catalog[name] = CatalogRow(name, "", len(frame), None, None, columns=tissue)
    directory = DataDirectory(folder / "data")
    return draw_cells(recipe, directory, archives, catalog)


def in_memory(recipe: Recipe, frames: Frames) -> pd.DataFrame:
    """What the table is to be."""
    parts, left = [], recipe.cell_count
    for name, frame in frames.items():
        rows = np.arange(len(frame))
        if left is not None:
            rows = pick_by_hash(list(frame.index), left, seed=recipe.seed, purpose="cells")
            left -= len(rows)
        part = frame.iloc[rows].assign(
            archive_row=rows, experiment_id=name, tissue=f"tissue {name}"
        )
        parts.append(part.astype({"word": object}))
    cells = pd.concat([part for part in parts if len(part)])
    if any(isinstance(value, str) for value in cells["number"]):
        cells["number"] = [str(value) for value in cells["number"]]
    split = recipe.split.assign_by_hash(list(cells.index), seed=recipe.seed)
    order = [
        np.random.default_rng([recipe.seed, code]).permutation(np.flatnonzero(split == code))
        for code in range(3)
    ]
    cells = cells.assign(split=np.array(["train", "val", "test"])[split]).iloc[
        np.concatenate(order)
    ]
    place = np.arange(len(cells))
    return cells.assign(shard=place // recipe.shard_size, row=place % recipe.shard_size)


@settings(max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    left_out=st.integers(0, 3),
    mixed=st.booleans(),
    chunk=st.integers(1, 5),
    group=st.integers(1, 9),
)
@pytest.mark.filterwarnings("ignore:The behavior of DataFrame concatenation:FutureWarning")
def test_the_table_is_what_one_in_memory_would_be(
    sizes: list[int], left_out: int, *, mixed: bool, chunk: int, group: int
) -> None:
    frames, n = make_frames(sizes, mixed=mixed), sum(sizes)
    recipe = make_recipe(
        cell_count=max(1, n - left_out), split={"by": "cell", "val": 0, "test": 0}, seed=n
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(cell_table, "_CHUNK_CELLS", chunk),
        patch.object(cell_table, "_GROUP_CELLS", group),
        patch.object(tables, "_MOST_BUCKETS", 2),
    ):
        cells = draw(recipe, frames, Path(folder))
        table, expected = pq.read_table(cells.path).to_pandas(), in_memory(recipe, frames)
        assert not cells.path.with_name("ordering").exists()
    assert table["cell_id"].tolist() == list(expected.index)
    assert len(cells) == len(expected)
    for name in table.columns.drop("cell_id"):
        found, wanted = (t[name].astype(object).tolist() for t in (table, expected))
        assert [None if v != v else v for v in found] == [None if v != v else v for v in wanted], (
            name
        )
    for place, (name, row) in enumerate(
        zip(table["experiment_id"], table["archive_row"], strict=True)
    ):
        assert cells.rows[name][row] == place
    assert sum(cells.count_drawn(name) for name in frames) == len(table)
    assert list(cells.rows) == sorted(cells.rows)


@pytest.mark.parametrize(
    "split",
    [
        {"by": "cell", "val": 0.3, "test": 0.2},
        {"by": "word", "val": ["a cell"], "test": ["c cell"]},
        {"by": "number", "val": ["3"], "test": ["4", "5"]},
        {"by": "experiment_id", "val": ["E8"], "test": []},
    ],
)
def test_splits_follow_from_places_and_from_an_archive_alone(
    tmp_path: Path, split: dict[str, Any]
) -> None:
    frames = {name: f for name, f in make_frames([30, 40, 30], mixed=False).items() if name != "E9"}
    recipe = make_recipe(split=split)
    cells = draw(recipe, frames, tmp_path)
    table = pq.read_table(cells.path).to_pandas()
    names = np.array(["train", "val", "test"])
    for name in frames:
        mine = table[table["experiment_id"] == name].sort_values("archive_row")
        assert names[cells.splits_of(name)].tolist() == mine["split"].tolist()
        row = CatalogRow(name, "", len(mine), None, None, columns={})
        alone = split_archive(recipe, row, tmp_path / f"{name}.h5ad")
        assert alone.tolist() == cells.splits_of(name).tolist()
    assert dict(cells.n_cells) == {name: int((table["split"] == name).sum()) for name in names}
    by_split = table.groupby("split", observed=False)["experiment_id"].nunique()
    assert dict(cells.n_experiments) == {name: int(by_split[name]) for name in names}


def test_a_label_without_a_value_is_refused_and_the_others_are_listed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"label 'nothing'.*have \['number', 'tissue', 'word'\]"):
        draw(make_recipe(labels=["nothing"]), make_frames([5, 5], mixed=False), tmp_path)


@pytest.mark.soak
def test_ids_of_more_than_two_gibibytes_in_all_are_written(tmp_path: Path) -> None:
    frames, padding = make_frames([500, 500], mixed=False), "x" * 2_300_000
    names = list(frames)

    def read_ids(reader: ObsReader, start: int, stop: int) -> list[str]:
        del reader
        return [f"{row}{padding}" for row in range(start, stop)]

    with (
        patch.object(ObsReader, "read_ids", read_ids),
        patch.object(cell_table, "_CHUNK_CELLS", 50),
    ):
        cells = draw(make_recipe(split={"by": "experiment_id", "val": names[:1]}), frames, tmp_path)
    with pq.ParquetFile(cells.path) as table:
        ids = [
            value.removesuffix(padding)
            for batch in table.iter_batches(batch_size=50, columns=["cell_id"])
            for value in batch["cell_id"].to_pylist()
        ]
    rows = pq.read_table(cells.path, columns=["archive_row"])["archive_row"].to_pylist()
    assert ids == [str(row) for row in rows]
