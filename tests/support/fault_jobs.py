"""Runs that are broken on the way: what the children of `Isolated` do."""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from scdiff_data import (
    Plan,
    Recipe,
    ScBaseCount,
    SimulatedAtlas,
    Source,
    choose_genes_again,
    prepare,
)
from scdiff_data.base import write_aside
from scdiff_data.pipeline import assemble
from support import file_calls

tqdm.monitor_interval = 0  # no thread of its own in what is forked

_plot_hvgs = assemble.plot_hvgs

ATLAS = SimulatedAtlas(n_experiments=4, n_cells=40, n_genes=120, seed=1)
"""Small, since it is prepared thousands of times: one experiment is junk, and one is empty."""

TINY = SimulatedAtlas(n_experiments=2, n_cells=20, n_genes=40, seed=1)
"""For what becomes of the atlas itself while it is written."""


def recipe(cell_count: int | None, source: Source = ATLAS) -> Recipe:
    """Of some cells of it, with two shards or more."""
    return Recipe(
        source=source,
        cell_count=cell_count,
        min_genes=5,
        min_counts=10,
        n_hvgs=30,
        split={"by": "cell"},
        labels=("cell_type",),
        shard_size=64,
        min_cells_pct=1,
    )


def make_bucket(folder: str) -> str:
    """Write the atlas where a run finds it that need not simulate it; its place."""
    return str(ATLAS.open(Path(folder)).url)


def run(kind: str, data_dir: str, bucket: str | None = None) -> None:
    """Prepare a directory: `small`, `whole`, or `choosing` genes again, with or without `drawing`.

    `unplanned` is `whole`, on a disk whose room nobody looked at before. `simulating` is of fewer
    cells. Sources are in a bucket, or simulated where none is named.

    Drawing the picture of the genes takes longer than all else. Where it is not asked for, a file
    of a few bytes takes its place, written in the same way.
    """
    warnings.simplefilter("error")
    file_calls.arm()
    assemble.plot_hvgs = _plot_hvgs if kind == "drawing" else write_picture
    if kind == "unplanned":
        Plan.check = _check_nothing  # type: ignore[method-assign]
    if kind in ("choosing", "drawing"):
        choose_genes_again(data_dir, n_hvgs=20, replace=True, n_threads=1)
        return
    source: Source = ATLAS if bucket is None else ScBaseCount(url=bucket)
    if kind == "simulating":
        source = TINY
    prepare(recipe(30 if kind == "small" else None, source), Path(data_dir), n_threads=1)


def warm_up() -> None:
    """Do all of it once."""
    with TemporaryDirectory() as folder:
        bucket = make_bucket(f"{folder}/bucket")
        for kind in ("small", "whole", "drawing"):
            run(kind, f"{folder}/data", bucket)
        run("simulating", f"{folder}/simulated")


def write_picture(path: Path, *_: Any) -> None:
    """Write a file of a few bytes in the place of the picture of the genes."""
    with write_aside(path) as aside:
        aside.write_bytes(b"no picture")


def _check_nothing(_: Plan) -> None:
    pass
