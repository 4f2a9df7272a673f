"""How fast files come from a bucket: `python benchmarks/download.py`.

The same objects of the same server, four at a time, into the same folder: (a) by `fs.get`, which
checks nothing; (b) by scdiff_data, which hashes every byte and can go on in the middle of a file.
Server and client share this machine's cores, so the network is no bound here and the client's own
work shows. The folder is in memory where the machine has one (`--folder` names another), because
the time of a write to a disk depends on what was written and deleted before. Rounds are
interleaved; the median of their ratios counts.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from fixtures.bucket import Server, start_server
from fixtures.goals import print_goal

from scdiff_data.fetching.downloads import download
from scdiff_data.sources.source import Bucket

N_THREADS = 4
BUCKET = "downloads"
MEMORY = Path("/dev/shm")


def get(file_system: Any, checksums: dict[str, str], size: int, folder: Path) -> None:
    del size
    names = list(checksums)
    file_system.get(
        [f"{BUCKET}/{name}" for name in names],
        [str(folder / name) for name in names],
        batch_size=N_THREADS,
    )


def ours(file_system: Any, checksums: dict[str, str], size: int, folder: Path) -> None:
    def fetch(name: str) -> Path:
        return download(
            file_system,
            f"{BUCKET}/{name}",
            folder / name,
            size=size,
            checksum=checksums[name],
            cancelled=threading.Event(),
        )

    with ThreadPoolExecutor(N_THREADS) as pool:
        list(pool.map(fetch, checksums))


CONTENDERS: dict[str, Callable[[Any, dict[str, str], int, Path], None]] = {
    "fs.get": get,
    "ours": ours,
}


def fill(server: Server, n_files: int, size: int) -> dict[str, str]:
    server.make_bucket(BUCKET)
    checksums = {}
    for number in range(n_files):
        content = np.random.default_rng(number).bytes(size)
        server.put(BUCKET, f"{number}.h5ad", content)
        checksums[f"{number}.h5ad"] = f"crc32c:{google_crc32c.value(content):08x}"
    return checksums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--folder", type=Path, default=MEMORY if MEMORY.is_dir() else None)
    arguments = parser.parse_args()
    n_files, size = 8, 100_000_000
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with start_server() as server, tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        checksums = fill(server, n_files, size)
        file_system, _ = Bucket(f"gs://{BUCKET}", {"endpoint_url": server.url}).connect()
        for round_number in range(-2, 40 if arguments.quick else 60):
            names = list(CONTENDERS)
            for name in names if round_number % 2 else names[::-1]:
                folder = Path(temporary) / "fetched"
                folder.mkdir()
                started = time.perf_counter()
                CONTENDERS[name](file_system, checksums, size, folder)
                if round_number >= 0:  # the first rounds warm up
                    seconds[name].append(time.perf_counter() - started)
                shutil.rmtree(folder)
                os.sync()  # or the next contender waits for this one's disk
    for name, times in seconds.items():
        speed = n_files * size / statistics.median(times) / 1e6
        print(f"{name:8} {statistics.median(times):6.2f} s {speed:7.0f} MB/s")
    ratios = [theirs / own for theirs, own in zip(seconds["fs.get"], seconds["ours"], strict=True)]
    print_goal("download_vs_get", statistics.median(ratios), ">=", 0.95)


if __name__ == "__main__":
    main()
