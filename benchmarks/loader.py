"""How fast batches come, beside bounds and other loaders: `python benchmarks/loader.py`.

200,000 simulated cells x 36,601 genes of ten experiments. Every contender gives torch tensors of
128 cells in a shuffled order, with a warm cache and one compute thread: of the same 2,000 genes
[128, 2000], and of all genes as CSR and as dense [128, 36601]. Each runs in a process of its own;
rounds are interleaved, and medians of the ratios within a round count. Memory, row sums and the
shuffle are looked at in passes of their own. Other loaders are skipped where they are not
installed; `--python annbatch=PATH` names another interpreter for one. `--folder` keeps the data for
the next run.
"""

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from fixtures.report import OURS, TASKS, Results, print_report
from fixtures.stores import Stores, folder_bytes

NOT_CELLS = (("ram", "dense"), ("zeros_new_pages", "dense"))


def contenders(peers: list[str]) -> list[tuple[str, str]]:
    """Task and name of each."""
    both = [(task, name) for task in TASKS for name in ("ram", "ours", "plain_h5py", *peers)]
    variants = [name for name in OURS if "ours_" in name or "two_workers" in name]
    other_bounds = [("dense", name) for name in ("zeros_new_pages", "ram_scattered")]
    return [*both[:2], *(("hvg", name) for name in variants), *both[2:], *other_bounds]


def run(job: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own."""
    import torch
    from fixtures import cold, contenders, peers
    from fixtures.measure import measure

    torch.set_num_threads(1)
    stores, name, task = Stores(Path(job["folder"]), job["n_cells"]), job["name"], job["task"]
    if job["kind"] == "probe":
        return {"version": peers.PEERS[name].version}
    if job["kind"] == "convert":
        peers.PEERS[name].convert(stores, task, Path(job["target"]))
        return {}
    if job["kind"] == "cold":
        return {"why_not": cold.why_not_cold(stores)}
    if name in ("read_cold", "dd_cold"):
        return {"rate": getattr(cold, name)(stores)}
    warm(stores, name, task)
    # What a program imports once is no part of its first batch.
    importlib.import_module(peers.PEERS[name].module if name in peers.PEERS else "scipy.sparse")
    if name.startswith(("ours", "plain")):
        importlib.import_module("scdiff_data")
    if name in peers.PEERS:
        open_contender = partial(peers.PEERS[name].open, stores, task)
    else:

        def open_contender(check: bool) -> Any:
            return getattr(contenders, name)(stores, task, **job.get("options", {}))

    def barrier() -> None:
        print("ready", flush=True)
        sys.stdin.readline()

    return measure(
        open_contender,
        stores,
        task,
        seconds=job["seconds"],
        check=job["check"] and (name, task) not in NOT_CELLS,
        barrier=barrier if job.get("barrier") else lambda: None,
    )


def warm(stores: Stores, name: str, task: str) -> None:
    """Read the contender's files once, so that they are in the page cache."""
    if name.startswith("ours") or (name, task) == ("plain_h5py", "hvg"):
        paths = [stores.data_dir / ("processed" if task == "hvg" else "cells")]
    else:
        own = stores.peer(name, task)
        paths = [own] if own.exists() else stores.h5ads(task)
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file():
                with file.open("rb", buffering=0) as stream:
                    while stream.read(1 << 22):
                        pass


class Runner:
    """Starts contenders in processes of their own, with the interpreters that they need."""

    def __init__(self, stores: Stores, pythons: dict[str, str]) -> None:
        self._stores, self._pythons = stores, pythons
        one = ("OMP", "MKL", "OPENBLAS", "NUMBA", "RAYON", "BLOSC")
        self._environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in one}
        self._environment["PYTHONWARNINGS"] = "ignore"

    def start(self, name: str, task: str = "hvg", **job: Any) -> subprocess.Popen[str]:
        job = {"kind": "measure", "name": name, "task": task, **job}
        job |= {"folder": str(self._stores.folder), "n_cells": self._stores.n_cells}
        return subprocess.Popen(
            [self._pythons.get(name, sys.executable), __file__, "--run", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
        )

    def run(self, name: str, task: str = "hvg", **job: Any) -> dict[str, Any]:
        return finish(self.start(name, task, **job))


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The last line that a contender printed."""
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError((errors.strip().splitlines() or [f"exit {process.returncode}"])[-1])
    return json.loads(output.splitlines()[-1])


def set_up_peers(runner: Runner, stores: Stores) -> list[str]:
    """Convert the atlas for every peer that is installed; their names."""
    found = []
    for name in ("annbatch", "cellstream", "scdl", "scdataset", "annloader"):
        try:
            version = runner.run(name, kind="probe")["version"]
        except (RuntimeError, OSError) as error:
            version = None
            print(f"set-up: {name}: {error}")
        if version is None:
            print(f"skipped {name}: not installed")
            continue
        try:
            sizes = [convert(runner, stores, name, task) for task in ("hvg", "csr")]
        except RuntimeError as error:
            print(f"failed: {name}: {error}")
            continue
        print(f"set-up: {name} {version}, " + "; ".join(sizes), flush=True)
        found.append(name)
    return found


def convert(runner: Runner, stores: Stores, name: str, task: str) -> str:
    """Convert one task's data, once; what it took."""
    if name in ("scdataset", "annloader"):
        return f"{TASKS[task].split(',')[0] if task == 'csr' else TASKS[task]}: the h5ad files"
    target, aside = stores.peer(name, task), stores.folder / f"converting-{name}-{os.getpid()}"
    took = "kept"
    if not target.exists():
        started = time.perf_counter()
        try:
            runner.run(name, task, kind="convert", target=str(aside))
            aside.rename(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        took = f"{time.perf_counter() - started:.0f} s"
    genes = "all genes" if task == "csr" else TASKS[task]
    return f"{genes}: {took}, {folder_bytes(target) / 1e6:,.0f} MB"


def run_rounds(
    runner: Runner, names: list[tuple[str, str]], n_rounds: int, seconds: float, *, is_cold: bool
) -> Results:
    """All contenders in turn, again and again; a peer that fails is named and left out.

    One with less than a tenth of our speed runs in the first round alone.
    """
    results: Results = defaultdict(list)
    names = list(names)
    for number in range(n_rounds):
        for task, name in list(names):
            job = {"seconds": seconds, "check": number == 0}
            try:
                results[task, name].append(runner.run(name, task, **job))
            except RuntimeError as error:
                if name == "ram" or name in OURS:  # wrong batches of ours are no matter of speed
                    raise
                print(f"failed: {name}, {TASKS[task]}: {error}", flush=True)
                names.remove((task, name))
                results.pop((task, name), None)
        for name, contender in (("two_ranks", "ours_rank"), ("two_rams", "ram")):
            results["hvg", name].append({"rate": run_two(runner, contender, seconds)})
        for name in ("read_cold", "dd_cold") if is_cold else ():
            results["hvg", name].append(runner.run(name))
        ours = {task: results[task, "ours"][0]["rate"] for task, name in names if name == "ours"}
        names = [n for n in names if results[n][0]["rate"] > 0.1 * ours.get(n[0], 0)]
        print(f"round {number + 1} of {n_rounds}", file=sys.stderr, flush=True)
    return results


def run_two(runner: Runner, name: str, seconds: float) -> float:
    """Cells a second of two processes at once; ranks of ours take half of the cells each."""
    job: dict[str, Any] = {"seconds": seconds, "check": False, "barrier": True}
    options = [{"rank": rank, "n_ranks": 2} if name == "ours_rank" else {} for rank in (0, 1)]
    processes = [runner.start(name, options=chosen, **job) for chosen in options]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(finish(process)["rate"] for process in processes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="40,000 cells and fewer rounds")
    parser.add_argument("--folder", type=Path, help="where the data are kept; else a temporary one")
    parser.add_argument("--python", action="append", default=[], metavar="PEER=PATH")
    parser.add_argument("--rounds", type=int, help="how many; else 5, or 2 with --quick")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(json.loads(arguments.run))))
        return
    n_rounds = arguments.rounds or (2 if arguments.quick else 5)
    seconds = 1.0 if arguments.quick else 2.5
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        stores = Stores(folder.absolute(), 40_000 if arguments.quick else 200_000)
        stores.make()
        runner = Runner(stores, dict(option.split("=", 1) for option in arguments.python))
        peers = set_up_peers(runner, stores)
        why_not = runner.run("", kind="cold")["why_not"]
        if why_not:
            print(f"skipped cold reads: {why_not}")
        names = contenders(peers)
        results = run_rounds(runner, names, n_rounds, seconds, is_cold=why_not is None)
        print_report(results, names, peers, stores.n_experiments)


if __name__ == "__main__":
    main()
