"""A reader of prepared directories, written from docs/format.md alone: h5py, numpy and JSON.

Nothing of the package is imported, so that the page is enough for anyone who wants to read the
files in another language.
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def read_manifest(folder: Path) -> dict[str, Any]:
    """`config.json`, looked at as the page says."""
    content = json.loads((folder / "config.json").read_text("utf-8"))
    if content["schema_version"] != 1:
        raise ValueError("another version of the format")
    said = content.pop("checksum")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")
    if hashlib.sha256(canonical).hexdigest()[:16] != said:
        raise ValueError("config.json was changed")
    for entry in content["files"]:
        found = hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest()
        if found != entry["sha256"]:
            raise ValueError(f"{entry['path']} was changed")
    return content


def read_split(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """The cells of a split, in their order."""
    manifest = read_manifest(folder)
    before = {"train": [], "val": ["train"], "test": ["train", "val"]}[split]
    first = sum(manifest["cells"][name] for name in before)
    paths = [e["path"] for e in manifest["files"] if e["path"].startswith("processed/")]
    key = manifest["shards_key"] + (":compact" if manifest["shard_format"] == "compact" else "")
    shards = [list(read_shard(folder / path, key)) for path in paths]
    size = manifest["recipe"]["shard_size"]
    for i in range(first, first + manifest["cells"][split]):
        yield shards[i // size][i % size]


def read_shard(path: Path, key: str) -> Iterator[dict[str, Any]]:
    with h5py.File(path) as file:
        if file.attrs["key"].decode() != key:
            raise ValueError(f"{path} is of another run")
        genes, n_genes = file["gene_indices"][:], len(file["gene_ids"])
        for i in range(len(file["cell_ids"])):
            if "expression" in file:
                counts = file["expression"][i]
            else:
                start, stop = file["starts"][i : i + 2].astype(int)
                counts = unpack(file["packed"][start:stop], n_genes)
            holds = genes.copy()
            if "fallback" in file:
                of_cell = slice(*file["fallback/indptr"][i : i + 2])
                holds[file["fallback/slots"][of_cell]] = file["fallback/genes"][of_cell]
            cell = {"id": file["cell_ids"][i].decode(), "counts": counts, "genes": holds}
            cell["experiment"] = file["experiment_ids"][i].decode()
            yield cell | {"total": file["total_counts"][i], "labels": read_labels(file, i)}


def unpack(packed: np.ndarray, n_genes: int) -> np.ndarray:
    counts, column = np.zeros(n_genes, int), -1
    for gap, count in packed.reshape(-1, 2).tolist():
        column += gap
        counts[column] = counts[column] + 256 * count if gap == 0 else count
    return counts


def read_labels(file: h5py.File, i: int) -> dict[str, Any]:
    labels: dict[str, Any] = {}
    for name, label in file.get("labels", {}).items():
        if isinstance(label, h5py.Group):
            code = label["codes"][i]
            labels[name] = None if code < 0 else label["categories"][code].decode()
        else:
            labels[name] = label[i]
    return labels


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """All genes of every cell of an archive, by its id."""
    with h5py.File(path) as file:
        obs, (n_cells, n_genes) = file["obs"], file["X"].attrs["shape"]
        dense = np.zeros((n_cells, n_genes), int)
        for i, (start, stop) in enumerate(pairwise(file["X/indptr"][:].tolist())):
            dense[i, file["X/indices"][start:stop]] = file["X/data"][start:stop]
        sums = obs["archived_counts" if "archived_counts" in obs else "total_counts"][:]
        if (dense.sum(1) != sums).any():
            raise ValueError(f"{path} is damaged")
        ids = obs[obs.attrs["_index"]].asstr()[:]
    return dict(zip(ids, dense, strict=True))
