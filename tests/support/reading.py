"""What is in a prepared directory, read without the package's readers, and without torch."""

from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import anndata as ad
import h5py
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from scdiff_data.store.drawn_cells import DrawnCells
from scdiff_data.store.manifest import Manifest


class Cells(NamedTuple):
    """Cells in the order of their global numbers."""

    counts: NDArray[np.int16]
    cell_ids: list[str]
    experiment_ids: list[str]
    labels: dict[str, list[Any]]
    gene_ids: list[str]
    gene_symbols: list[str]


def read_table(data_dir: Path, split: str | None = None) -> Any:
    """`cells.parquet` as a data frame; of a split, its rows alone."""
    table = pq.read_table(data_dir / "metadata" / "cells.parquet").to_pandas()
    return table if split is None else table[table["split"] == split]


def read_splits(data_dir: Path) -> dict[str, NDArray[np.int8]]:
    """Of each archive's rows the split: 0 train, 1 val, 2 test, -1 not drawn."""
    table, found = read_table(data_dir), {}
    codes = table["split"].map({"train": 0, "val": 1, "test": 2}).to_numpy(np.int8)
    for name, cells in table.groupby("experiment_id", observed=True).indices.items():
        with h5py.File(data_dir / "cells" / f"{name}.h5ad") as file:
            found[str(name)] = np.full(file["X"].attrs["shape"][0], -1, np.int8)
        found[str(name)][table["archive_row"].to_numpy()[cells]] = codes[cells]
    return found


def read_drawn(data_dir: Path) -> DrawnCells:
    """The drawn cells, as the stages after the draw take them."""
    table, manifest, rows = read_table(data_dir), Manifest.read(data_dir), {}
    for name, splits in sorted(read_splits(data_dir).items()):
        rows[name] = np.full(len(splits), -1, np.int32)
        mine = np.flatnonzero(table["experiment_id"] == name)
        rows[name][table["archive_row"].to_numpy()[mine]] = mine
    texts = table.select_dtypes("category").columns.difference(["experiment_id", "split"])
    words = {name: list(table[name].cat.categories) for name in texts}
    path = manifest.directory.cells
    return DrawnCells(path, manifest.n_cells, manifest.n_experiments, rows, words)


def read_shards(data_dir: Path, split: str | None = None) -> Cells:
    """The chosen genes, from the shards."""
    parts: dict[str, list[Any]] = {}
    for path in sorted((data_dir / "processed").glob("batch_*.h5")):
        with h5py.File(path) as shard:
            parts.setdefault("expression", []).append(_read_counts(shard))
            for name in ("cell_ids", "experiment_ids"):
                parts.setdefault(name, []).append(shard[name][:])
            for name, label in shard.get("labels", {}).items():
                is_text = isinstance(label, h5py.Group)
                values = label["codes"][:] if is_text else label[:]
                if is_text:
                    words = [*label["categories"].asstr()[:], None]
                    values = np.array(words, object)[values]
                parts.setdefault(f"labels/{name}", []).append(values)
            genes = [[g.decode() for g in shard[n][:]] for n in ("gene_ids", "gene_symbols")]
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    rows = read_table(data_dir, split).index.to_numpy()
    ids = {name: [i.decode() for i in whole[name][rows]] for name in ("cell_ids", "experiment_ids")}
    labels = {n.split("/")[1]: v[rows].tolist() for n, v in whole.items() if n.startswith("labels")}
    return Cells(whole["expression"][rows], *ids.values(), labels, *genes)


def _read_counts(shard: h5py.File) -> NDArray[np.int16]:
    """A shard's counts, int16 [n_cells, n_genes], by what docs/format.md says."""
    if "packed" not in shard:
        return shard["expression"][:]
    starts, packed = shard["starts"][:].astype(np.int64), shard["packed"][:].astype(np.int64)
    counts = np.zeros((len(starts) - 1, len(shard["gene_ids"])), np.int64)
    for cell, (start, stop) in enumerate(pairwise(starts)):
        gaps, values = packed[start:stop].reshape(-1, 2).T
        genes = np.cumsum(gaps) - 1
        is_high = gaps == 0
        np.add.at(counts[cell], genes, np.where(is_high, 256 * values, values))
    return counts.astype(np.int16)


def read_archives(data_dir: Path, split: str | None = None) -> Cells:
    """All genes, from the archives."""
    table = read_table(data_dir, split)
    counts = []
    archives = {p.stem: ad.read_h5ad(p) for p in (data_dir / "cells").glob("*.h5ad")}
    for experiment, row in zip(table["experiment_id"], table["archive_row"], strict=True):
        counts.append(archives[experiment].X[row].toarray()[0])
    var = next(iter(archives.values())).var
    return Cells(
        np.array(counts, np.int16),
        table["cell_id"].tolist(),
        table["experiment_id"].astype(str).tolist(),
        {},
        var.index.tolist(),
        var["gene_symbols"].tolist(),
    )


def source_counts(bucket: Path) -> dict[str, dict[str, int]]:
    """Every cell's counts by gene id, read from the bucket's files by anndata alone."""
    cells = {}
    for path in bucket.rglob("*.h5ad"):
        experiment = ad.read_h5ad(path)
        genes = [gene.split(".")[0] for gene in experiment.var_names]
        for barcode, counts in zip(experiment.obs_names, experiment.X.toarray(), strict=True):
            cells[f"{path.stem}_{barcode}"] = dict(zip(genes, counts.astype(int), strict=True))
    return cells
