"""A reader of prepared directories, written from docs/format.md alone: h5py, numpy and JSON.

Nothing of the package is imported: the page is enough for anyone who reads in another language.
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
        if hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest() != entry["sha256"]:
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
        said = {name: file[name][:] for name in file if isinstance(file[name], h5py.Dataset)}
        other = {name: values[:] for name, values in file.get("fallback", {}).items()}
        labels = {name: read_label(label) for name, label in file.get("labels", {}).items()}
    for i in range(len(said["cell_ids"])):
        if "expression" in said:
            counts = said["expression"][i]
        else:
            start, stop = said["starts"][i : i + 2].astype(int)
            counts = unpack(said["packed"][start:stop], len(said["gene_ids"]))
        genes = said["gene_indices"].copy()
        if other:
            of_cell = slice(*other["indptr"][i : i + 2])
            genes[other["slots"][of_cell]] = other["genes"][of_cell]
        cell = {"counts": counts, "genes": genes, "total": said["total_counts"][i]}
        cell["id"], cell["experiment"] = (
            said[n][i].decode() for n in ("cell_ids", "experiment_ids")
        )
        yield cell | {"labels": {name: values[i] for name, values in labels.items()}}


def unpack(packed: np.ndarray, n_genes: int) -> np.ndarray:
    counts, column = np.zeros(n_genes, int), -1
    for gap, count in packed.reshape(-1, 2).tolist():
        column += gap
        counts[column] = counts[column] + 256 * count if gap == 0 else count
    return counts


def read_label(label: h5py.Group | h5py.Dataset) -> list[Any]:
    if isinstance(label, h5py.Dataset):
        return list(label[:])
    words = [*(word.decode() for word in label["categories"][:]), None]
    return [words[code] for code in label["codes"][:]]


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """All genes of every cell of an archive, by its id."""
    with h5py.File(path) as file:
        obs, (n_cells, n_genes) = file["obs"], file["X"].attrs["shape"]
        dense, columns, counts = (
            np.zeros((n_cells, n_genes), int),
            file["X/indices"],
            file["X/data"],
        )
        for i, (start, stop) in enumerate(pairwise(file["X/indptr"][:].tolist())):
            dense[i, columns[start:stop]] = counts[start:stop]
        sums = obs["archived_counts" if "archived_counts" in obs else "total_counts"][:]
        if (dense.sum(1) != sums).any():
            raise ValueError(f"{path} is damaged")
        ids = obs[obs.attrs["_index"]].asstr()[:]
    return dict(zip(ids, dense, strict=True))
