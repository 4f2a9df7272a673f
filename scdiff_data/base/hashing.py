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
    Those in use: `draw` orders experiments, `cells` picks an experiment's cells for the cap and for
    the draw, `split` assigns splits, `barcode` names simulated cells.
    """
    key = f"{purpose}:{seed}".encode()
    hasher = hashlib.blake2b
    digests = b"".join(hasher(i.encode(), digest_size=8, key=key).digest() for i in ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def order_by_hash(ids: Sequence[str], *, seed: int, purpose: str) -> list[str]:
    """The ids in the order of their keyed hashes: a longer list only puts more in between."""
    hashes = keyed_hash(ids, seed=seed, purpose=purpose)
    return [i for _, i in sorted(zip(hashes.tolist(), ids, strict=True))]


def pick_by_hash(ids: Sequence[str], n: int, *, seed: int, purpose: str) -> NDArray[np.int64]:
    """Places, ascending, of the `n` ids of lowest keyed hash; of all, if there are fewer."""
    if n >= len(ids):
        return np.arange(len(ids))
    hashes = keyed_hash(ids, seed=seed, purpose=purpose)
    return np.sort(np.argsort(hashes, kind="stable")[:n])


def digest(content: Any) -> str:
    """Fingerprint of plain settings: 16 hex digits of the SHA-256 of their canonical JSON."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
