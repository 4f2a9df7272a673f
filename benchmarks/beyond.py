"""Data beyond memory: loading and preparing under a cap of memory: `python benchmarks/beyond.py`.

One simulated experiment (10,000 cells x 36,601 genes, 305 of the 2,000 chosen ones expressed a
cell), archived once and copied; its shards, dense and compact, copied to many gigabytes. Each
contender runs in a process of its own, its files dropped from the page cache, in a control group
whose memory is a fraction of the data (D/M: data over memory). Python and torch, 0.4 GB, count.
Rounds are interleaved; medians count. Shards are opened before the clock starts. The disk's own
limits are measured in the same rounds, past the page cache: bytes in sequence, and reads at random
places of as many bytes as a row has, 256 on their way. Needs root; `--folder` keeps the data.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from fixtures.goals import print_goal
from fixtures.memory_cap import (
    count_bytes_read,
    drop_from_cache,
    peak_bytes,
    run_capped,
    why_not_capped,
)

N_COPIES = {False: {"dense": 40, "compact": 150}, True: {"dense": 12, "compact": 60}}
"""Copies of 100,000 cells, by --quick."""

BASE_BYTES = 400 << 20
"""What a process takes beside its data, at --quick's sizes added to the cap."""


def load(folder: Path, task: str, seconds: float, *, warm: bool) -> dict[str, float]:
    """Cells a second of one contender, in this process."""
    import torch

    from scdiff_data import create_dataloader, create_hvg_dataloader

    torch.set_num_threads(1)
    kind, shuffle = task.split()
    if kind == "csr":
        loader = create_dataloader(folder, 128, sparse=True, shuffle=shuffle, labels=[])
    else:
        loader = create_hvg_dataloader(folder, 128, shuffle=shuffle)
    loader.sampler.set_epoch(time.time_ns() % 10**6)
    n = len(loader.dataset)
    loader.dataset[np.arange(0, n, 4_999)]  # opens all shards
    batches = iter(loader)
    for _ in range(600 if warm else 30):
        next(batches)
    n_cells, before = 0, count_bytes_read()
    cpu, started = time.process_time(), time.perf_counter()
    for batch in batches:
        n_cells += len(batch[0])
        if n_cells % 1280 == 0 and time.perf_counter() - started > seconds:
            break
    taken = time.perf_counter() - started
    return {
        "rate": n_cells / taken,
        "cpu": (time.process_time() - cpu) / n_cells * 1e6,
        "read": (count_bytes_read() - before) / n_cells,
    }


def write(folder: Path, shard_format: str, max_memory: int) -> dict[str, float]:
    """Shards from the archives of a directory, in this process."""
    from fixtures.drawn import read_drawn

    from scdiff_data.shards.contents import ShardGenes
    from scdiff_data.shards.writing import write_shards
    from scdiff_data.store.layout import DataDirectory
    from scdiff_data.store.manifest import Manifest

    at_start = peak_bytes()
    manifest, target = Manifest.read(folder), folder.with_name("written")
    info = json.loads(manifest.directory.hvg_info.read_text())
    cells = read_drawn(manifest)
    shutil.rmtree(target, ignore_errors=True)
    genes = ShardGenes(
        indices=np.array(info["hvg_indices"]),
        ids=info["hvg_names"],
        symbols=info["hvg_symbols"],
        n_values=305 * len(cells),
    )
    before = peak_bytes()
    started = time.perf_counter()
    write_shards(
        DataDirectory(target),
        cells,
        {name: manifest.directory.archive(name) for name in cells.rows},
        genes,
        labels=["cell_type"],
        shard_size=10_000,
        shard_format=shard_format,
        key="benchmark",
        n_threads=2,
        max_memory=max_memory,
    )
    taken = time.perf_counter() - started
    shutil.rmtree(target)
    # What the table of cells took is this script's doing: a run has it already.
    taken_bytes = peak_bytes() - before + at_start
    return {"rate": len(cells) / taken, "seconds": taken, "peak": taken_bytes}


def copy(folder: Path) -> dict[str, float]:
    """The archives' bytes read and written once."""
    target, buffer = folder.with_name("copies"), memoryview(bytearray(8 << 20))
    target.mkdir(exist_ok=True)
    n, started = 0, time.perf_counter()
    for path in sorted((folder / "cells").glob("*.h5ad")):
        with path.open("rb", 0) as source, (target / path.name).open("wb", 0) as copied:
            while size := source.readinto(buffer):
                copied.write(buffer[:size])
            os.fsync(copied.fileno())
        n += 10_000
        (target / path.name).unlink()
    return {"rate": n / (time.perf_counter() - started)}


def open_sparse(folder: Path) -> dict[str, float]:
    """A directory of 10^9 cells whose files are holes: opened, and 2,000 batches drawn."""
    from scdiff_data import CellSampler, HVGDataset

    started = time.perf_counter()
    dataset = HVGDataset(folder)
    opened = time.perf_counter() - started
    sampler = CellSampler(len(dataset), 128)
    next(iter(sampler))  # compiles
    before = peak_bytes()
    for number, _ in enumerate(sampler):
        if number == 20_000:
            break
    peak = peak_bytes()
    return {"cells": len(dataset), "seconds": opened, "grown_mb": (peak - before) / 1e6}


def run(job: dict[str, Any]) -> dict[str, float]:
    folder = Path(job["folder"])
    if job["what"] == "load":
        return load(folder, job["task"], job["seconds"], warm=job["warm"])
    if job["what"] == "write":
        return write(folder, job["format"], job["max_memory"])
    return {"copy": copy, "sparse": open_sparse}[job["what"]](folder)


def start(cap: int | None, **job: Any) -> dict[str, float]:
    command = [sys.executable, __file__, "--run", json.dumps(job | {"folder": str(job["folder"])})]
    return json.loads(run_capped(command, cap).splitlines()[-1])


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def make(folder: Path, *, quick: bool) -> None:
    from fixtures.large import PrepareOptions, copy_archives, fill_shards, multiply_shards

    n_archives = 20 if quick else 40
    for shard_format, n in N_COPIES[quick].items():
        target = folder / shard_format
        if not (target / "config.json").exists():
            few = folder / f"few_{shard_format}"
            filled = copy_archives(folder, few, 10)
            fill_shards(folder, few, filled, PrepareOptions(n_threads=2), shard_format=shard_format)
            multiply_shards(few, target, n)
            shutil.rmtree(few)
    if not (folder / "archives" / "config.json").exists():
        filled = copy_archives(folder, folder / "archives", n_archives)
        options = PrepareOptions(n_threads=2)
        fill_shards(folder, folder / "archives", filled, options, shard_format="compact")
    if not (folder / "sparse" / "config.json").exists():
        make_sparse(folder / "compact", folder / "sparse")


def make_sparse(data_dir: Path, target: Path) -> None:
    """1,000 dense shards of a million cells each, without a byte of counts."""
    from dataclasses import replace

    import h5py

    from scdiff_data.store.layout import DataDirectory
    from scdiff_data.store.manifest import Manifest

    manifest, directory = Manifest.read(data_dir), DataDirectory(target)
    directory.shards.mkdir(parents=True)
    n = 1_000_000
    with h5py.File(directory.shard(0), "w") as file, h5py.File(manifest.shards[0]) as known:
        for name, shape, dtype in (
            ("expression", (n, 2_000), np.int16),
            ("total_counts", (n,), np.int32),
            ("cell_ids", (n,), "S20"),
            ("experiment_ids", (n,), "S6"),
        ):
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple(shape)
            kind = h5py.h5t.py_create(np.dtype(dtype))
            h5py.h5d.create(file.id, name.encode(), kind, space, properties)
        for name in ("gene_ids", "gene_symbols", "gene_indices"):
            file[name] = known[name][:]
    size = directory.shard(0).stat().st_size
    with directory.shard(0).open("rb") as first:
        start = first.read(1 << 20)
    entries = []
    for number in range(1_000):
        path = directory.shard(number)
        if number:
            with path.open("wb") as file:
                file.write(start)
                file.truncate(size)
        name = path.relative_to(target).as_posix()
        entries.append(replace(manifest.shard_entries[0], path=name, size=size))
    cells = {"train": 1_000 * n, "val": 0, "test": 0}
    recipe = {**manifest.recipe, "shard_size": n}
    new = replace(manifest, data_dir=target, n_cells=cells, files=tuple(entries), recipe=recipe)
    replace(new, shard_format="dense").write()


def measure_limits(folder: Path, *, seconds: float) -> dict[str, float]:
    from fixtures.disk import read_at_random, read_in_sequence

    dense, compact = (sorted((folder / f / "processed").glob("*")) for f in ("dense", "compact"))
    archives = sorted((folder / "archives" / "cells").glob("*.h5ad"))
    return {
        "sequence": read_in_sequence(dense, seconds=seconds),
        "dense": read_at_random(dense, 4_000, seconds=seconds),
        "compact": read_at_random(compact[:500], 656, seconds=seconds),
        # A row of all genes lies at two places: its indices, and its counts.
        "csr": read_at_random(archives, 6_810, seconds=seconds) / 2,
    }


def run_rounds(folder: Path, *, quick: bool, n_rounds: int) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = defaultdict(list)
    seconds = 6 if quick else 12
    places = {"dense": folder / "dense", "compact": folder / "compact", "csr": folder / "archives"}
    sizes = {
        k: folder_bytes(p / ("cells" if k == "csr" else "processed")) for k, p in places.items()
    }
    tasks = [f"{k} {order}" for k in ("compact", "dense") for order in ("window", "global")]
    for number in range(n_rounds):
        for name, rate in measure_limits(folder, seconds=seconds / 3).items():
            results[f"limit {name}"].append({"rate": rate})
        for ratio in (4,) if quick else (4, 10):
            for task in [*tasks, "csr global"]:
                kind = task.split()[0]
                cap = sizes[kind] // ratio + (BASE_BYTES if quick else 0)
                drop_from_cache(places[kind] / ("cells" if kind == "csr" else "processed"))
                job = {"what": "load", "task": task, "seconds": seconds, "warm": False}
                results[f"{task}, D/M {ratio}"].append(start(cap, folder=places[kind], **job))
        for task in tasks:
            kind = task.split()[0]
            few = folder / "few"
            results[f"{task}, warm"].append(warm_up(few, places[kind], task, seconds))
        cap = sizes["csr"] // 4 + (BASE_BYTES if quick else 0)
        for shard_format in ("dense", "compact"):
            drop_from_cache(places["csr"] / "cells")
            job = {"what": "write", "format": shard_format, "max_memory": 256 << 20}
            results[f"write {shard_format}"].append(start(cap, folder=places["csr"], **job))
        drop_from_cache(places["csr"] / "cells")
        results["copy"].append(start(cap, folder=places["csr"], what="copy"))
        print(f"round {number + 1} of {n_rounds}", file=sys.stderr, flush=True)
    return results


def warm_up(few: Path, data_dir: Path, task: str, seconds: float) -> dict[str, float]:
    """The first 400,000 cells of a directory, in memory."""
    target = few / data_dir.name
    if not (target / "config.json").exists():
        link_shards(data_dir, target, 40)
    for path in target.rglob("*.h5"):
        path.read_bytes()
    return start(None, folder=target, what="load", task=task, seconds=seconds, warm=True)


def link_shards(data_dir: Path, target: Path, n_shards: int) -> None:
    """A directory of another's first shards, as links."""
    from dataclasses import replace

    from scdiff_data.store.manifest import Manifest

    manifest = Manifest.read(data_dir)
    (target / "processed").mkdir(parents=True)
    entries = manifest.shard_entries[:n_shards]
    for entry in entries:
        os.link(data_dir / entry.path, target / entry.path)
    cells = {"train": 10_000 * n_shards, "val": 0, "test": 0}
    replace(manifest, data_dir=target, n_cells=cells, files=tuple(entries)).write()


def measure_growth(folder: Path, *, quick: bool) -> tuple[float, float]:
    """Exponent of time in cells when preparing, and the most memory over what was allowed, MB."""
    from fixtures.large import PrepareOptions, copy_archives, fill_shards

    times, peaks, allowed = [], [], 256 << 20
    sizes = (10, 30) if quick else (10, 60, 200)
    for n in sizes:
        target = folder / f"linked_{n}"
        if not (target / "config.json").exists():
            filled = copy_archives(folder, target, n, link=True)
            fill_shards(folder, target, filled, PrepareOptions(n_threads=2), shard_format="compact")
        job = {"what": "write", "format": "compact", "max_memory": allowed}
        found = [start(None, folder=target, **job) for _ in range(2)]
        times.append(min(f["seconds"] for f in found))
        peaks.append(max(f["peak"] for f in found))
        print(
            f"{n * 10_000:,} cells to compact shards: {times[-1]:.2f} s, {peaks[-1] / 1e6:,.0f} MB"
        )
    exponent = float(np.polyfit(np.log(sizes), np.log(times), 1)[0])
    return exponent, max(peaks) / 1e6 - allowed / 1e6


def print_report(results: dict[str, list[dict[str, float]]], *, quick: bool) -> None:
    def middle(name: str, key: str = "rate") -> float:
        return statistics.median(found[key] for found in results[name])

    print(f"\ndisk, past the page cache: {middle('limit sequence') / 1e6:,.0f} MB/s in sequence;")
    for name, text in (("compact", "656"), ("dense", "4,000"), ("csr", "two times 6,810")):
        print(f"  {middle(f'limit {name}'):,.0f} rows/s of {text} bytes at random places")
    print(f"\n{'':28} {'cells/s':>10} {'CPU us a cell':>14} {'bytes read a cell':>18}")
    for name in results:
        if "cpu" in results[name][0]:
            cpu, read = middle(name, "cpu"), middle(name, "read")
            print(f"{name:28} {middle(name):10,.0f} {cpu:14.2f} {read:18,.0f}")
    for name in ("write dense", "write compact", "copy"):
        print(f"{name + ', D/M 4':28} {middle(name):10,.0f}")
    print()
    for ratio in (4,) if quick else (4, 10):
        at = f", D/M {ratio}"
        share = middle(f"compact window{at}") / middle("compact window, warm")
        print_goal(f"windows_compact_vs_warm_{ratio}", share, ">=", 0.5)
        bytes_read = middle(f"dense window{at}") * 4_000
        share = bytes_read / middle("limit sequence")
        print_goal(f"windows_dense_vs_sequence_{ratio}", share, ">=", 0.6)
        for kind in ("compact", "dense", "csr"):
            share = middle(f"{kind} global{at}") / middle(f"limit {kind}")
            print_goal(f"global_{kind}_vs_random_reads_{ratio}", share, ">=", 0.65)
    for kind in ("dense", "compact"):
        share = middle(f"write {kind}") / middle("copy")
        print_goal(f"write_{kind}_vs_copy", share, ">=", 0.6)
    warm = middle("compact window, warm") / middle("dense window, warm")
    print_goal("compact_vs_dense_warm", warm, ">=", 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the data, D/M 4 alone")
    parser.add_argument("--folder", type=Path, help="where the data are kept; else a temporary one")
    parser.add_argument("--rounds", type=int, help="how many; else 3, or 1 with --quick")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(json.loads(arguments.run))))
        return
    if reason := why_not_capped():
        print(f"skipped: {reason}")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, quick=arguments.quick)
        subprocess.run(["sync"], check=True)
        n_rounds = arguments.rounds or (1 if arguments.quick else 3)
        results = run_rounds(folder, quick=arguments.quick, n_rounds=n_rounds)
        exponent, over = measure_growth(folder, quick=arguments.quick)
        sparse = start(None, folder=folder / "sparse", what="sparse")
        print_report(results, quick=arguments.quick)
        print_goal("prepare_exponent", exponent, "<=", 1.05)
        print_goal("prepare_mb_over_max_memory", over, "<=", 300, digits=0)
        print_goal("open_a_billion_cells_s", sparse["seconds"], "<=", 0.5)
        print_goal("sampler_growth_mb", sparse["grown_mb"], "<=", 20, digits=0)


if __name__ == "__main__":
    main()
