"""How fast one experiment becomes an archive: `python benchmarks/archive.py`.

One simulated file of 8,600 cells x 36,601 genes, 2,270 expressed genes a cell, gzip CSC float32,
is (a) inflated by zlib, chunk by chunk, in one thread: the floor; (b) converted by scdiff_data with
one and two threads; (c) read by scanpy, made CSR and int16, and written uncompressed. Inflating in
two threads, which share nothing, says what a second thread can give on this machine. Each contender
runs in a process of its own, warmed up on a small file; the rounds are interleaved, and medians of
the rounds' ratios count.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
from fixtures.experiment import make_file
from fixtures.goals import print_goal

from scdiff_data.archive import QualityFilter, write_archive
from scdiff_data.reading.gene_axis import GeneAxis
from scdiff_data.reading.h5ad import read_gene_axis


def inflate(source: Path, target: Path, n_threads: int = 1) -> None:
    del target
    with h5py.File(source) as file, ThreadPoolExecutor(n_threads) as pool:
        for name in ("data", "indices"):
            dataset = file["X"][name]
            offsets = [
                dataset.id.get_chunk_info(number).chunk_offset
                for number in range(dataset.id.get_num_chunks())
            ]
            chunks = (dataset.id.read_direct_chunk(offset)[1] for offset in offsets)
            if n_threads == 1:
                for chunk in chunks:
                    zlib.decompress(chunk)
            else:
                list(pool.map(lambda chunk: len(zlib.decompress(chunk)), chunks))


@functools.cache
def known_axis(source: Path) -> GeneAxis:
    """The reference genes: read once in the life of a data set, so in the warming up."""
    return read_gene_axis(source)


def ours(source: Path, target: Path, n_threads: int = 1) -> None:
    write_archive(
        source,
        target,
        experiment_id="SRX",
        axis=known_axis(source.with_name("large.h5ad")),
        quality=QualityFilter(300, 500),
        max_cells=None,
        seed=0,
        max_memory=1 << 30,
        n_threads=n_threads,
    )


def with_scanpy(source: Path, target: Path) -> None:
    import scanpy as sc

    cells = sc.read_h5ad(source)
    cells.X = cells.X.tocsr().astype(np.int16)
    cells.write_h5ad(target)


CONTENDERS: dict[str, Callable[[Path, Path], None]] = {
    "inflate": inflate,
    "inflate-2-threads": lambda source, target: inflate(source, target, 2),
    "ours": ours,
    "ours-2-threads": lambda source, target: ours(source, target, 2),
    "scanpy": with_scanpy,
}


def run(name: str, folder: Path) -> None:
    """In a process of its own: warm up, then convert twice, once for the clock, once for memory."""
    target = folder / "target.h5ad"
    CONTENDERS[name](folder / "small.h5ad", target)
    target.unlink(missing_ok=True)
    wall, cpu = time.perf_counter(), time.process_time()
    CONTENDERS[name](folder / "large.h5ad", target)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    target.unlink(missing_ok=True)

    peak, done, before = [0], threading.Event(), anonymous_memory()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    CONTENDERS[name](folder / "large.h5ad", target)
    done.set()
    watcher.join()
    target.unlink(missing_ok=True)
    print(json.dumps({"wall": wall, "cpu": cpu, "peak_mb": peak[0] / 1e6}))


def anonymous_memory() -> int:
    """Bytes of this process that no file backs."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--run", nargs=2, metavar=("NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run[0], Path(arguments.run[1]))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        make_file(Path(folder) / "small.h5ad", n_cells=300)
        make_file(Path(folder) / "large.h5ad", n_cells=8_600)
        for _ in range(3 if arguments.quick else 9):
            for name in CONTENDERS:
                command = [sys.executable, __file__, "--run", name, folder]
                output = subprocess.run(command, capture_output=True, text=True, check=True)
                results[name].append(json.loads(output.stdout))
    for name, rounds in results.items():
        wall, cpu, peak = (
            statistics.median(r[key] for r in rounds) for key in ("wall", "cpu", "peak_mb")
        )
        print(f"{name:18} {wall:6.2f} s wall {cpu:6.2f} s CPU {peak:7.0f} MB of memory")

    def ratio(key: str, above: str, below: str) -> float:
        pairs = zip(results[above], results[below], strict=True)
        return statistics.median(a[key] / b[key] for a, b in pairs)

    print(f"inflating in two threads: {ratio('wall', 'inflate', 'inflate-2-threads'):.2f} x one")
    for name in ("ours", "ours-2-threads"):
        print(f"{name}: {ratio('wall', 'scanpy', name):.2f} x scanpy")
    # No archive is made faster than its file is inflated once, by as many threads.
    both = ratio("wall", "inflate-2-threads", "ours-2-threads")
    for goal, measured, sign, wanted in (
        ("archive_share_of_inflating", ratio("wall", "inflate", "ours"), ">=", 0.85),
        ("archive_share_of_inflating_two_threads", both, ">=", 0.85),
        ("archive_memory_vs_scanpy", ratio("peak_mb", "ours", "scanpy"), "<=", 0.25),
    ):
        print_goal(goal, measured, sign, wanted)


if __name__ == "__main__":
    main()
