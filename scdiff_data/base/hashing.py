"""Digests that name content, and keyed hashes that decide."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

_PIECE = 1 << 14
"""Texts that are objects at a time."""


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


Places = NDArray[np.int32] | NDArray[np.int64]
"""Places in a column: int32 where that is enough."""


def order_by_hash(ids: pa.ChunkedArray, *, seed: int, purpose: str) -> Places:
    """Places of ids in the order of their keyed hashes: a longer list only puts more in between.

    Of ids of the same hash the lesser is the first.
    """
    hashes = _hash_parts(ids, lambda part: keyed_hash(part, seed=seed, purpose=purpose))
    places = np.argsort(hashes, kind="stable")
    order: Places = places.astype(np.int32) if len(ids) < 2**31 else places
    del places
    hashes.sort()
    if (hashes[1:] == hashes[:-1]).any():
        texts = ids.to_pylist()
        of_place = dict(zip(order.tolist(), hashes.tolist(), strict=True))
        order[:] = sorted(of_place, key=lambda place: (of_place[place], texts[place]))
    return order


def hash_texts(texts: pa.ChunkedArray) -> NDArray[np.uint64]:
    """A 64-bit hash of every text, to find equal ones by; whoever wants to can make two collide."""
    return _hash_parts(
        texts, lambda part: pd.util.hash_array(np.array(part, object), categorize=False)
    )


def find_first(texts: pa.ChunkedArray, order: Places | None = None) -> NDArray[np.bool_]:
    """Whether each text is the first of its kind, in the order of the column or in another one.

    Parameters
    ----------
    texts
        The texts, without nulls.
    order
        Their places, in the order that counts.
    """
    is_first, hashes = np.ones(len(texts), bool), hash_texts(texts)
    hashes.sort()
    twice = hashes[1:][hashes[1:] == hashes[:-1]]
    del hashes
    if not len(twice):
        return is_first
    is_twice = np.isin(hash_texts(texts), twice)
    places = np.flatnonzero(is_twice) if order is None else order[is_twice[order]]
    seen: set[str] = set()
    for place in places.tolist():
        text = texts[place].as_py()
        is_first[place] = text not in seen
        seen.add(text)
    return is_first


def cut(texts: pa.ChunkedArray) -> Iterator[pa.Array]:
    """A column in pieces of some thousand texts: as objects they take ten times their bytes."""
    for chunk in texts.chunks:
        yield from (chunk.slice(at, _PIECE) for at in range(0, len(chunk), _PIECE))


def _hash_parts(
    texts: pa.ChunkedArray, hash_part: Callable[[list[str]], NDArray[np.uint64]]
) -> NDArray[np.uint64]:
    hashes, at = np.empty(len(texts), np.uint64), 0
    for part in cut(texts):
        hashes[at : at + len(part)] = hash_part(part.to_pylist())
        at += len(part)
    return hashes


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
