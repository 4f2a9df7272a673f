"""Digests that name content, and keyed hashes that decide."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def keyed_hash(ids: Iterable[str], *, seed: int, purpose: str) -> NDArray[np.uint64]:
    """64-bit BLAKE2b of every id, keyed by seed and purpose.

    The purpose keeps decisions independent: the order of the draw says nothing about the split.
    """
    key = f"{purpose}:{seed}".encode()
    hasher = hashlib.blake2b
    digests = b"".join(hasher(i.encode(), digest_size=8, key=key).digest() for i in ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def order_experiments(experiment_ids: Sequence[str], *, seed: int) -> list[str]:
    """The experiments in the order of the draw."""
    hashes = keyed_hash(experiment_ids, seed=seed, purpose="draw")
    return [i for _, i in sorted(zip(hashes.tolist(), experiment_ids, strict=True))]


def draw_cells(cell_ids: Sequence[str], n_cells: int, *, seed: int) -> NDArray[np.int64]:
    """Rows, ascending, of the `n_cells` cells of lowest keyed hash (all, if there are fewer)."""
    if n_cells >= len(cell_ids):
        return np.arange(len(cell_ids))
    hashes = keyed_hash(cell_ids, seed=seed, purpose="cells")
    return np.sort(np.argsort(hashes, kind="stable")[:n_cells])


def digest(content: Any) -> str:
    """Fingerprint of plain settings: 16 hex digits of the SHA-256 of their canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
