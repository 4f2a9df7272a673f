"""Files of ours that say what cannot be, with checksums that are right: no damage, but a hand's."""

import json
import random
from pathlib import Path
from typing import Any

import torch

from scdiff_data.base import describe_file, read_sealed, write_json, write_sealed
from scdiff_data.tokenizers import stored_fit
from support.mutants import walk

_ABSURD = (
    *(None, True, [], {}, "", 0.5, -1, -(2**63), 2**64, float("inf"), float("nan")),
    *("../../outside", "/outside", "\0"),
)
"""What a place becomes, if it is not taken away."""


def write_resealed(path: Path, data_dir: Path, *, seed: int, number: int) -> tuple[str, list[str]]:
    """Put what cannot be into one place of a JSON file or of a tokenizer's fit.

    Parameters
    ----------
    path
        The file, below `data_dir`.
    seed, number
        What is put where follows from these and the file.

    Returns
    -------
    said
        What was done.
    names
        The keys that lead to the place.
    """
    rng = random.Random(f"{seed} {number}")
    if path.suffix == ".pt":
        return _change_fit(path, rng)
    manifest = data_dir / "config.json"
    is_sealed = path == manifest or path.parent.name == "cells"
    content = read_sealed(path) if is_sealed else json.loads(path.read_text("utf-8"))
    place = rng.choice(list(walk(content)))
    holder = content
    for key in place[:-1]:
        holder = holder[key]
    before, value = holder[place[-1]], rng.choice((*_ABSURD, "gone", [holder[place[-1]]]))
    if value == "gone":
        del holder[place[-1]]
    else:
        holder[place[-1]] = value
    if is_sealed:
        write_sealed(path, content)
    else:
        write_json(path, content)
        _describe_again(path, manifest)
    names = [key for key in place if isinstance(key, str)]
    return f"{'/'.join(map(str, place))}: {before!r:.60} becomes {value!r:.60}", names


def _describe_again(path: Path, manifest: Path) -> None:
    """Let the manifest say what a file holds now."""
    content, entry = read_sealed(manifest), describe_file(path, manifest.parent)
    for known in content["files"]:
        if known["path"] == entry.path:
            known |= {"size": entry.size, "sha256": entry.sha256}
    write_sealed(manifest, content)


def _change_fit(path: Path, rng: random.Random) -> tuple[str, list[str]]:
    content = torch.load(path, weights_only=True)
    state: dict[str, Any] = dict(content["state"])
    name = rng.choice(sorted(state))
    tensor = state.pop(name)
    kind = rng.choice(("gone", "nan", "negative", "large", "shorter", "type", "axes", "list"))
    changed = {
        "nan": tensor.double() * float("nan"),
        "negative": -1 - tensor.abs(),
        "large": tensor + 2**40 if tensor.dtype == torch.int64 else tensor * 0 + 2e9,
        "shorter": tensor.reshape(-1)[1:],
        "type": tensor.to(torch.complex64),
        "axes": tensor[None],
        "list": tensor.tolist(),
    }
    if kind != "gone":
        state[name] = changed[kind]
    try:
        checksum = stored_fit._checksum(state)
    except AttributeError:  # of what is no tensor
        checksum = content["checksum"]
    torch.save({**content, "state": state, "checksum": checksum}, path)
    return f"state/{name} becomes {kind}", [name]
