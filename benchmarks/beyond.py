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
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from fixtures.goals import print_goal
from fixtures.memory_cap import drop_from_cache, run_capped, set_read_ahead, why_not_capped

N_COPIES = {False: {"dense": 40, "compact": 150}, True: {"dense": 12, "compact": 60}}
"""Copies of 100,000 cells, by --quick."""

JOBS = Path(__file__).parent / "fixtures" / "beyond_jobs.py"
"""What runs in processes of their own."""

ANNBATCH = JOBS.with_name("beyond_annbatch.py")
"""The peer, which may have an interpreter of its own."""

BASE_BYTES = 400 << 20
"""What a process takes beside its data, at --quick's sizes added to the cap."""


def start(cap: int | None, **job: Any) -> dict[str, float]:
    command = [sys.executable, str(JOBS), json.dumps(job | {"folder": str(job["folder"])})]
    return json.loads(run_capped(command, cap).splitlines()[-1])


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def start_annbatch(python: str, cap: int | None, **job: Any) -> dict[str, Any]:
    output = run_capped([python, str(ANNBATCH), json.dumps(job)], cap)
    return json.loads(output.splitlines()[-1])


def set_up_annbatch(folder: Path, python: str, *, quick: bool) -> Path | None:
    """Its store of the same cells; None without annbatch."""
    try:
        version = start_annbatch(python, None, what="probe")["version"]
    except (subprocess.CalledProcessError, OSError):
        print("skipped annbatch: not installed; --annbatch names the Python that has it")
        return None
    target = folder / "annbatch.zarr"
    if not (target / "done").exists():
        shutil.rmtree(target, ignore_errors=True)
        shards = sorted(map(str, (folder / "dense" / "processed").glob("*")))[:10]
        n = N_COPIES[quick]["compact"]
        start_annbatch(python, None, what="convert", shards=shards, target=str(target), n_copies=n)
        (target / "done").touch()
    print(f"annbatch {version}: {folder_bytes(target) / 1e6:,.0f} MB", flush=True)
    return target


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


def run_rounds(
    folder: Path, python: str, *, quick: bool, n_rounds: int
) -> dict[str, list[dict[str, float]]]:
    annbatch = set_up_annbatch(folder, python, quick=quick)
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
            if annbatch is not None:
                cap = folder_bytes(annbatch) // ratio + (BASE_BYTES if quick else 0)
                drop_from_cache(annbatch)
                job = {"what": "load", "target": str(annbatch), "seconds": seconds}
                try:
                    results[f"annbatch, D/M {ratio}"].append(start_annbatch(python, cap, **job))
                except subprocess.CalledProcessError as error:
                    print(f"failed: annbatch in {cap / 1e9:.1f} GB, exit {error.returncode}")
                    results.pop(f"annbatch, D/M {ratio}", None)
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
    from fixtures.large import link_shards

    target = few / data_dir.name
    if not (target / "config.json").exists():
        link_shards(data_dir, target, 40)
    for path in target.rglob("*.h5"):
        path.read_bytes()
    return start(None, folder=target, what="load", task=task, seconds=seconds, warm=True)


def print_report(results: dict[str, list[dict[str, float]]], *, quick: bool) -> None:
    def middle(name: str, key: str = "rate") -> float:
        return statistics.median(found[key] for found in results[name])

    print(f"\ndisk, past the page cache: {middle('limit sequence') / 1e6:,.0f} MB/s in sequence;")
    for name, text in (("compact", "656"), ("dense", "4,000"), ("csr", "two times 6,810")):
        print(f"  {middle(f'limit {name}'):,.0f} rows/s of {text} bytes at random places")
    print(f"\n{'':28} {'cells/s':>10} {'CPU us a cell':>14} {'bytes read a cell':>18}")
    for name in results:
        if "cpu" in results[name][0]:
            cpu = middle(name, "cpu")
            read = f"{middle(name, 'read'):18,.0f}" if "read" in results[name][0] else ""
            print(f"{name:28} {middle(name):10,.0f} {cpu:14.2f} {read}")
    for name in ("write dense", "write compact", "copy"):
        print(f"{name + ', D/M 4':28} {middle(name):10,.0f}")
    print()
    for ratio in (4,) if quick else (4, 10):
        at = f", D/M {ratio}"
        share = middle(f"compact window{at}") / middle("compact window, warm")
        print_goal(f"windows_compact_vs_warm_{ratio}", share, ">=", 0.5)
        if f"annbatch{at}" in results:
            share = middle(f"compact window{at}") / middle(f"annbatch{at}")
            print_goal(f"windows_compact_vs_annbatch_{ratio}", share, ">=", 3)
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
    parser.add_argument(
        "--read-ahead", type=int, help="kB that the system reads ahead, for the run"
    )
    parser.add_argument("--rounds", type=int, help="how many; else 3, or 1 with --quick")
    parser.add_argument("--annbatch", default=sys.executable, help="the Python that has annbatch")
    arguments = parser.parse_args()
    if reason := why_not_capped():
        print(f"skipped: {reason}")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, quick=arguments.quick)
        subprocess.run(["sync"], check=True)
        n_rounds = arguments.rounds or (1 if arguments.quick else 3)
        with set_read_ahead(folder, arguments.read_ahead) as kilobytes:
            print(f"the system reads {kilobytes} kB ahead", flush=True)
            results = run_rounds(
                folder, arguments.annbatch, quick=arguments.quick, n_rounds=n_rounds
            )
        print_report(results, quick=arguments.quick)


if __name__ == "__main__":
    main()
