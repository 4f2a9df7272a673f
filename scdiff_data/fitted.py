"""A tokenizer's fit, kept beside the data it was made on, and in the checkpoints of models.

`prepare_data` writes it once a node, so that all ranks and later runs take the same; a fit of other
data is never used.
"""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from scdiff_data.dataset import HVGDataset
from scdiff_data.files import digest, write_aside
from scdiff_data.manifest import Manifest
from scdiff_data.rank_tokens import Tokenizer

_N_FIT_CELLS = 20_000
"""Training cells that a tokenizer is fitted on: the first, which are a random sample already."""


def store_fit(tokenizer: Tokenizer, manifest: Manifest) -> None:
    """Fit a tokenizer on the training cells and keep it, if that was not done or is of other data.

    A directory that cannot be written is left as it is: every run then fits for itself.
    """
    if _read_fit(tokenizer, manifest) is not None or not os.access(manifest.data_dir, os.W_OK):
        return
    _fit(tokenizer, manifest)
    content = {"data": _data_digest(manifest), "state": tokenizer.state_dict()}
    with write_aside(_path(tokenizer, manifest)) as aside:
        torch.save(content, aside)


def open_fit(tokenizer: Tokenizer, manifest: Manifest) -> None:
    """Take the kept fit, or fit again where there is none of these data."""
    state = _read_fit(tokenizer, manifest)
    if state is None:
        _fit(tokenizer, manifest)
    else:
        tokenizer.restore(state)


def describe_fit(tokenizer: Tokenizer | None, manifest: Manifest) -> dict[str, Any]:
    """What a checkpoint keeps: plain values and tensors."""
    genes = {"genes": manifest.content["genes"]["chosen_digest"]}
    if tokenizer is None:
        return genes
    return genes | {"tokenizer": type(tokenizer).__name__, "state": dict(tokenizer.state_dict())}


def restore_fit(tokenizer: Tokenizer | None, manifest: Manifest, stored: Mapping[str, Any]) -> None:
    """Take a checkpoint's fit.

    Raises
    ------
    ValueError
        If the checkpoint is of other genes or of another tokenizer.
    """
    own = describe_fit(tokenizer, manifest)
    way_out = (
        "take the data and the tokenizer that the checkpoint was made with, or load its weights "
        "alone into a new run, as model=pretrained does"
    )
    if stored["genes"] != own["genes"]:
        raise ValueError(
            f"the checkpoint was trained on other genes than {manifest.data_dir} has: {way_out}"
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


def _fit(tokenizer: Tokenizer, manifest: Manifest) -> None:
    cells = HVGDataset(manifest.data_dir, split="train", labels=[])[:_N_FIT_CELLS]
    tokenizer.fit(cells.expression.numpy(), cells.metadata["total_counts"].numpy())


def _read_fit(tokenizer: Tokenizer, manifest: Manifest) -> dict[str, Any] | None:
    try:
        content = torch.load(_path(tokenizer, manifest), weights_only=True)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):  # none there, or damaged
        return None
    return dict(content["state"]) if content["data"] == _data_digest(manifest) else None


def _path(tokenizer: Tokenizer, manifest: Manifest) -> Path:
    name = type(tokenizer).__name__
    return manifest.data_dir / "tokenizers" / f"{name}-{digest(tokenizer.settings())}.pt"


def _data_digest(manifest: Manifest) -> str:
    entries = manifest.content["files"]
    return digest([e["sha256"] for e in entries if e["path"].startswith("processed/")])
