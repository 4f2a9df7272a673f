"""A tokenizer's fit, kept beside the data it was made on, and in the checkpoints of models.

`prepare_data` writes it once a node, so that all ranks and later runs take the same; a fit of other
data is never used.
"""

import hashlib
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scdiff_data.base import digest, write_aside
from scdiff_data.store import DataDirectory, locked
from scdiff_data.tokenizers.contract import Tokenizer

_N_FIT_CELLS = 20_000
"""Training cells that a tokenizer is fitted on: the first, which are a random sample already."""


_NO_FIT = (
    *(OSError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile),
    *(ValueError, TypeError, LookupError, AttributeError),
)
"""What reading a fit raises that is not there, or damaged, or of a version without a checksum."""


@dataclass(frozen=True)
class FitData:
    """What a fit is made on.

    Parameters
    ----------
    data_dir
        The data directory.
    folder
        Where in it fits are kept.
    digest, genes_digest
        Fingerprints of the shards, and of their genes.
    read_training_counts
        Gives the counts and total counts of the first so many training cells.
    """

    data_dir: Path
    folder: Path
    digest: str
    genes_digest: str
    read_training_counts: Callable[[int], tuple[NDArray[np.int16], NDArray[np.integer[Any]]]]


def store_fit(tokenizer: Tokenizer, data: FitData) -> None:
    """Fit a tokenizer on the training cells and keep it, if that was not done or is of other data.

    A directory that cannot be written is left as it is: every run then fits for itself.
    """
    if _read_fit(tokenizer, data) is not None:
        return
    directory = DataDirectory(data.data_dir)
    places = [path for path in (directory.path, directory.lock) if path.exists()]
    if not all(os.access(path, os.W_OK) for path in places):
        return
    with locked(directory):  # runs that start together would write one file
        if _read_fit(tokenizer, data) is not None:
            return
        _fit(tokenizer, data)
        state = tokenizer.state_dict()
        content = {"data": data.digest, "state": state, "checksum": _checksum(state)}
        with write_aside(_path(tokenizer, data)) as aside:
            torch.save(content, aside)


def open_fit(tokenizer: Tokenizer, data: FitData) -> None:
    """Take the kept fit, or fit again where there is none of these data."""
    state = _read_fit(tokenizer, data)
    if state is None:
        _fit(tokenizer, data)
    else:
        tokenizer.restore(state)


def describe_fit(tokenizer: Tokenizer | None, data: FitData) -> dict[str, Any]:
    """What a checkpoint keeps: plain values and tensors."""
    genes = {"genes": data.genes_digest}
    if tokenizer is None:
        return genes
    return genes | {"tokenizer": type(tokenizer).__name__, "state": dict(tokenizer.state_dict())}


def restore_fit(tokenizer: Tokenizer | None, data: FitData, stored: Mapping[str, Any]) -> None:
    """Take a checkpoint's fit.

    Raises
    ------
    ValueError
        If the checkpoint is of other genes or of another tokenizer.
    """
    own = describe_fit(tokenizer, data)
    way_out = (
        "take the data and the tokenizer that the checkpoint was made with, or load its weights "
        "alone into a new run, as model=pretrained does"
    )
    if stored["genes"] != own["genes"]:
        raise ValueError(
            f"the checkpoint was trained on other genes than {data.data_dir} has: {way_out}"
        )
    there, here = stored.get("tokenizer"), own.get("tokenizer")
    if there != here:
        raise ValueError(
            f"the checkpoint was trained with tokenizer {there}, not {here}: {way_out}"
        )
    if tokenizer is None:
        return
    edges = [state["edges"].tolist() if "edges" in state else None
             for state in (stored["state"], own["state"])]  # fmt: skip
    if edges[0] != edges[1]:
        raise ValueError(
            f"the checkpoint's tokens stand for other counts: its bins start at {edges[0]}, those "
            f"here at {edges[1]}: {way_out}"
        )
    tokenizer.restore(stored["state"])


def _fit(tokenizer: Tokenizer, data: FitData) -> None:
    tokenizer.fit(*data.read_training_counts(_N_FIT_CELLS))


def _read_fit(tokenizer: Tokenizer, data: FitData) -> dict[str, Any] | None:
    try:
        content = torch.load(_path(tokenizer, data), weights_only=True)
        state = dict(content["state"])
        is_whole = content["checksum"] == _checksum(state)  # torch compares none by itself
        if not is_whole or content["data"] != data.digest:
            return None
        tried = deepcopy(tokenizer).to(torch.device("cpu"))
        tried.restore(state)
        tried.encode(torch.from_numpy(data.read_training_counts(1)[0]))
    except _NO_FIT:
        return None
    return state


def _checksum(state: Mapping[str, torch.Tensor]) -> str:
    """Hex SHA-256 of the names, types and numbers of a tokenizer's state."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        numbers = tensor.numpy(force=True)
        sha256.update(f"{name} {numbers.dtype} {numbers.shape}\n".encode() + numbers.tobytes())
    return sha256.hexdigest()


def _path(tokenizer: Tokenizer, data: FitData) -> Path:
    name = type(tokenizer).__name__
    return data.folder / f"{name}-{digest(tokenizer.settings())}.pt"
