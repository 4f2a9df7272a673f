"""Damaged copies of a file: each is made again from its seed and number.

Any file has bytes that are flipped, set, zeroed, cut off, added, doubled or swapped. HDF5 and JSON
files are also changed where their structure stays: one number of a dataset, one attribute, one
member that goes; one digit, text, type or key.
"""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_NUMBERS = (0, 1, -1, 2, 127, 255, 32_767, 32_768, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
"""What a number of a file becomes, beside its neighbours and random ones."""


def write_mutant(source: Path, target: Path, *, seed: int, number: int) -> str:
    """Write a damaged copy of a file, and say what was done to it.

    Parameters
    ----------
    source, target
        The whole file, and where the copy goes.
    seed, number
        What is done follows from these and the file.
    """
    rng = random.Random(f"{seed} {number}")
    target.unlink(missing_ok=True)
    if rng.random() < 0.6:
        if source.suffix in (".h5", ".h5ad"):
            shutil.copyfile(source, target)
            return _change_hdf5(target, rng)
        if source.suffix == ".json" or source.name in (".zarray", ".zattrs", ".zgroup"):
            content = json.loads(source.read_text("utf-8"))
            said, content = _change_json(content, rng)
            target.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")
            return said
    said, changed = change_bytes(source.read_bytes(), rng)
    target.write_bytes(changed)
    return said


def write_mutant_folder(source: Path, target: Path, *, seed: int, number: int) -> str:
    """Copy a folder and damage one of its files; takes and gives what `write_mutant` does."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
    chosen = files[number % len(files)]
    return f"{chosen}: " + write_mutant(source / chosen, target / chosen, seed=seed, number=number)


def change_bytes(content: bytes, rng: random.Random) -> tuple[str, bytes]:
    """Change some bytes of what a file holds; what was done, and the result."""
    changed, n = bytearray(content), len(content)
    # The first bytes say where the others are: what goes wrong there is worse.
    at = rng.randrange(n if rng.random() < 0.5 else min(n, 4096))
    length = min(rng.choice((1, 2, 8, 64, 512, 4096)), n - at)
    other = rng.randrange(n - length + 1)
    kind = rng.choice(("bit", "byte", "number", "zero", "cut", "add", "double", "copy", "swap"))
    if kind == "bit":
        changed[at] ^= 1 << rng.randrange(8)
    elif kind == "byte":
        changed[at] = rng.randrange(256)
    elif kind == "number":
        width, value = rng.choice((2, 4, 8)), rng.choice(_NUMBERS)
        at -= at % width
        changed[at : at + width] = (value % 256**width).to_bytes(width, "little")
        del changed[n:]
    elif kind == "zero":
        changed[at : at + length] = bytes(length)
    elif kind == "cut":
        del changed[at:]
    elif kind == "add":
        changed += rng.randbytes(length) if rng.random() < 0.5 else bytes(length)
    elif kind == "double":
        changed[at:at] = changed[at : at + length]
    elif kind == "copy":
        changed[at : at + length] = content[other : other + length]
    else:
        changed[at : at + length] = content[other : other + length]
        changed[other : other + length] = content[at : at + length]
    return f"{kind} at {at} of {n}, {length} bytes, {other}", bytes(changed)


def _change_hdf5(path: Path, rng: random.Random) -> str:
    """Change one thing of an HDF5 file by way of the library."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        datasets = [name for name in names if isinstance(file[name], h5py.Dataset)]
        counts = [name for name in datasets if name.split("/")[0] in ("X", "expression", "packed")]
        name = rng.choice(counts if counts and rng.random() < 0.5 else datasets)
        kind = rng.choice(
            ("value", "value", "value", "attribute", "gone", "moved", "shape", "type")
        )
        if kind == "value":
            return f"{name}: {_change_value(file[name], rng)}"
        if kind == "attribute":
            holders = [place for place in ("/", *names) if len(file[place].attrs)]
            return _change_attribute(file, rng.choice(holders), rng)
        if kind == "gone":
            name = rng.choice(names)
            del file[name]
            return f"{name} is gone"
        if kind == "moved":
            name, other = rng.choice(names), rng.choice(names)
            if not other.startswith(name) and not name.startswith(other):
                del file[other]
                file[other] = file[name]
            return f"{other} is {name}"
        return f"{name}: {_replace_dataset(file, name, kind, rng)}"


def _change_value(dataset: h5py.Dataset, rng: random.Random) -> str:
    if not dataset.size:
        return "empty, left as it is"
    place = tuple(rng.randrange(n) for n in dataset.shape)
    before = dataset[place]
    value: Any
    if dataset.dtype.kind in "iub":
        other = dataset[tuple(rng.randrange(n) for n in dataset.shape)]
        near = [int(before) + 1, int(before) - 1, int(other), rng.choice(_NUMBERS)]
        value = np.array(rng.choice(near)).astype(np.int64).astype(dataset.dtype)
    elif dataset.dtype.kind == "f":
        value = rng.choice((before + 1, before + 0.5, -1.0, np.nan, np.inf, 1e30, 0.0, 40_000.0))
    else:
        text = before.decode("utf-8", "replace") if isinstance(before, bytes) else str(before)
        value = rng.choice(("", text + "x", text[:-1], "é", "a/b", "\t")).encode()
    dataset[place] = value
    return f"{place}: {before!r} becomes {value!r}"


def _change_attribute(file: h5py.File, holder: str, rng: random.Random) -> str:
    attributes = file[holder].attrs
    name = rng.choice(sorted(attributes))
    before = attributes[name]
    value: Any
    if isinstance(before, str):
        value = rng.choice(("", before[:-1], "csr_matrix", "csc_matrix", "array", "dataframe", 7))
    else:
        array = np.atleast_1d(np.asarray(before)).copy()
        if array.dtype.kind not in "iuf" or not array.size:
            value = rng.choice((0, "x"))
        else:
            place = rng.randrange(len(array))
            number = rng.choice((int(array[place]) + 1, int(array[place]) - 1, *_NUMBERS))
            array[place] = np.array(number % 2**63).astype(array.dtype)
            value = array if np.ndim(before) else array[0]
    if rng.random() < 0.2:
        del attributes[name]
        return f"{holder}@{name} is gone"
    attributes[name] = value
    return f"{holder}@{name}: {before!r} becomes {value!r}"


def _replace_dataset(file: h5py.File, name: str, kind: str, rng: random.Random) -> str:
    values, attributes = file[name][()], dict(file[name].attrs)
    if kind == "shape":
        values = np.atleast_1d(values)
        values = rng.choice((values[:-1], values[1:], np.concatenate([values, values[:1]])))
    elif np.asarray(values).dtype.kind in "iufb":
        with np.errstate(all="ignore"):
            values = np.asarray(values).astype(rng.choice((">i4", "i1", "u8", "f4", "f8", "S3")))
    else:
        values = np.zeros(np.shape(values), np.int32)
    del file[name]
    file[name] = values
    for key, value in attributes.items():
        file[name].attrs[key] = value
    return f"now {np.shape(values)} of {np.asarray(values).dtype}"


def walk(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to each place of what JSON says."""
    if path:
        yield path
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            yield from walk(content[key], (*path, key))


def _change_json(content: Any, rng: random.Random) -> tuple[str, Any]:
    """Change one place of what JSON says."""
    paths = list(walk(content))
    if not paths:
        return "empty, left as it is", content
    path = rng.choice(paths)
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    key, before = path[-1], holder[path[-1]]
    kind = rng.choice(("value", "value", "type", "gone", "renamed"))
    value: Any
    if kind == "gone":
        del holder[key]
    elif kind == "renamed" and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif kind == "value" and type(before) in (int, float):
        value = rng.choice((before + 1, before - 1, -before, before * 10, *_NUMBERS, 0.5))
        holder[key] = value
    elif kind == "value" and isinstance(before, str):
        at = rng.randrange(len(before) + 1)
        holder[key] = before[:at] + rng.choice("0a/.é") + before[at + 1 :]
    else:
        holder[key] = rng.choice((None, True, [], {}, "", 0, [before], str(before), 1e400))
    return f"{'/'.join(map(str, path))}: {kind}, {before!r:.80}", content
