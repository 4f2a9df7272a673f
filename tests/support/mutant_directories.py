"""Prepared directories of which one file is damaged, read and prepared again: what children do."""

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data import (
    HVGDataset,
    LogBinTokens,
    Manifest,
    QuantileTokens,
    ScRNADataModule,
    ScRNADataset,
    TokenDataset,
    check_data_dir,
    convert_shards,
    prepare,
)
from scdiff_data.errors import ManifestError, ScdiffDataError
from scdiff_data.genes import NamedGenes
from scdiff_data.pipeline import assemble
from support.cases import digest_tree
from support.fault_jobs import recipe, write_picture
from support.mutants import write_mutant
from support.resealed import write_resealed

FILES = {
    "config.json": "config.json",
    "hvg_info.json": "hvg_info.json",
    "archives": "cells/*.h5ad",
    "records": "cells/*.json",
    "statistics": "statistics/*.npz",
    "tables": "metadata/*.parquet",
    "experiments.json": "metadata/experiments.json",
    "dense shards": "processed/*.h5",
    "compact shards": "processed/*.h5",
    "fits of tokenizers": "tokenizers/*.pt",
}
"""Each kind of file on disk: the pattern of its paths."""

_SEALED_AGAIN = "resealed "
"""What the kinds begin with whose files say what cannot be, with checksums that are right."""

_PREPARE_EVERY = 4
"""Of so many mutants one is prepared again: that takes longest."""


def write_whole(folder: Path) -> None:
    """Prepare `dense` and `compact`, each with a fit of a tokenizer."""
    assemble.plot_hvgs = write_picture
    for name in ("dense", "compact"):
        prepare(recipe(None), folder / name, n_threads=1)
        if name == "compact":
            convert_shards(folder / name, "compact", n_threads=1)
        _open_module(folder / name).prepare_data()


def write_whole_at(folder: str) -> None:
    """Do it in a child."""
    write_whole(Path(folder))


def try_directory(kind: str, whole: str, folder: str, seed: int, number: int) -> dict[str, str]:
    """Damage one file; what became of the readers, of the check and of another `prepare`."""
    warnings.simplefilter("ignore")
    assemble.plot_hvgs = write_picture
    source, work = Path(whole) / _name(kind), Path(folder) / "data"
    if not work.exists() or digest_tree(work) != digest_tree(source):
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(source, work)
    paths = sorted(source.glob(FILES[kind.removeprefix(_SEALED_AGAIN)]))
    path = paths[number % len(paths)]
    target = work / path.relative_to(source)
    what = f"{kind} {number}: {target.relative_to(work)}: "
    names: list[str] = []
    if kind.startswith(_SEALED_AGAIN):
        said, names = write_resealed(target, work, seed=seed, number=number)
    else:
        said = write_mutant(path, target, seed=seed, number=number)
    what += said
    print(what, flush=True)
    if _says_the_same(target, path):
        return {"kind": "right", "what": what}
    wanted = _read_all(source)

    def attempt(do: Callable[[], str]) -> str:
        return _attempt(do, target.name, names)

    found = [attempt(lambda: _check(work))]
    is_noticed = found[0] == "clear"
    print("checked", found, flush=True)
    for read in _READERS:
        result = attempt(lambda read=read: _differ(read(work), wanted[read.__name__]))
        found.append("clear" if is_noticed and result.startswith("wrong") else result)
        print(read.__name__, found[-1], flush=True)
    if number % _PREPARE_EVERY == 0:
        # What has a right checksum is taken to be finished.
        kept = {"config.json", str(target.relative_to(work))} if names else set()
        found.append(attempt(lambda: _prepare(work, source, kept, is_noticed=is_noticed)))
    worst = [text for text in found if text not in ("", "clear")]
    if worst:
        return {"kind": worst[0].split(":")[0], "what": f"{what}\n" + "\n".join(worst)}
    return {"kind": "clear" if "clear" in found or is_noticed else "right", "what": what}


def _says_the_same(target: Path, path: Path) -> bool:
    """Whether no byte changed, or none that matters to JSON."""
    contents = [target.read_bytes(), path.read_bytes()]
    if contents[0] != contents[1] and path.suffix == ".json":
        with suppress(ValueError):
            contents = [json.loads(content) for content in contents]
    return contents[0] == contents[1]


def warm_up() -> None:
    """Do it once."""
    with TemporaryDirectory() as folder:
        write_whole(Path(folder))
        for name in ("dense", "compact"):
            _read_all(Path(folder) / name)


def _name(kind: str) -> str:
    return "compact" if kind == "compact shards" else "dense"


def _open_module(data_dir: Path) -> ScRNADataModule:
    settings = recipe(None)
    names = ("min_genes", "min_counts", "n_hvgs", "labels", "shard_size", "min_cells_pct")
    return ScRNADataModule(
        settings.source,
        data_dir,
        split={"by": "cell"},
        tokenizer=QuantileTokens(n_tokens=5),
        batch_size=16,
        **{name: getattr(settings, name) for name in names},
    )


def _read_shards(data_dir: Path) -> dict[str, NDArray[Any]]:
    return _to_arrays(HVGDataset(data_dir)[:])


def _read_archives(data_dir: Path) -> dict[str, NDArray[Any]]:
    dense = _to_arrays(ScRNADataset(data_dir)[:])
    sparse = ScRNADataset(data_dir, sparse=True)[:].expression.to_dense().numpy()
    return dense | {"sparse": sparse}


def _read_tokens(data_dir: Path) -> dict[str, NDArray[Any]]:
    module = _open_module(data_dir)
    module.setup()
    dataset = HVGDataset(data_dir)
    tokens = module.tokenizer.encode(dataset[:].expression)
    table = LogBinTokens(n_tokens=8).count_table
    return {"tokens": tokens.numpy(), "mapped": TokenDataset(dataset, table)[:].tokens.numpy()}


def _to_arrays(batch: Any) -> dict[str, NDArray[Any]]:
    columns = {name: np.asarray(values.tolist()) for name, values in batch.metadata.items()}
    return columns | {"expression": batch.expression.numpy()}


def _read_genes(data_dir: Path) -> dict[str, NDArray[Any]]:
    return {"n_genes": np.array(len(NamedGenes.read(data_dir / "hvg_info.json").names))}


_READERS = (_read_shards, _read_archives, _read_tokens, _read_genes)
"""All that reads a prepared directory."""

_WHOLE: dict[Path, dict[str, dict[str, NDArray[Any]]]] = {}
"""What was read from whole directories."""


def _read_all(data_dir: Path) -> dict[str, dict[str, NDArray[Any]]]:
    if data_dir not in _WHOLE:
        _WHOLE[data_dir] = {read.__name__: read(data_dir) for read in _READERS}
    return _WHOLE[data_dir]


def _differ(found: dict[str, NDArray[Any]], wanted: dict[str, NDArray[Any]]) -> str:
    different = [name for name in wanted if not np.array_equal(found.get(name), wanted[name])]
    return f"wrong: {different} differ" if different else ""


def _prepare(work: Path, source: Path, kept: set[str], *, is_noticed: bool) -> str:
    prepare(recipe(None), work, n_threads=1)
    found, wanted = digest_tree(work), digest_tree(source)
    names = [name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)]
    names = [name for name in names if not name.startswith(("tokenizers/", "processed/"))]
    names = [name for name in names if name not in kept]
    Manifest.read(work)
    return f"wrong: prepared again, {names} differ" if names and not is_noticed else ""


def _check(work: Path) -> str:
    """Nothing, or an error that says what the check says."""
    if problems := check_data_dir(work):
        raise ManifestError("\n".join(problems))
    return ""


def _attempt(do: Callable[[], str], name: str, fields: Sequence[str]) -> str:
    """What a call says; `clear` if it raises an error of ours that names file and field."""
    try:
        return do()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what became of the call
        text, is_own = f"{type(error).__name__}: {error}", isinstance(error, ScdiffDataError)
        is_named = name in text and (not fields or any(field in text for field in fields))
        if is_named and (is_own or isinstance(error, FileNotFoundError | ValueError)):
            return "clear"
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = "" if place is None else f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
        return f"unclear: {text[:500]} at {where}"
