"""From a bucket to shards, and where the time goes: `python benchmarks/prepare.py`.

A real Google Cloud Storage server of this machine holds one simulated experiment (8,600 cells x
36,601 genes, 2,270 expressed genes a cell, gzip CSC float32) under several accessions. `prepare`
fetches all their cells but a few, archives them, and writes shards of 2,000 HVGs, in a process of
its own that has warmed up on a small bucket. Its main thread is looked at a hundred times a second:
`fill_archive.py` is then waiting for a download, the others do what their first lines say.
Server and client share this machine's cores.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

import pandas as pd
from fixtures.bucket import Server, start_server
from fixtures.experiment import make_file
from fixtures.memory_cap import run_capped, why_not_capped
from fixtures.watching import watch_main_thread

from scdiff_data import Recipe, ScBaseCount, prepare

ARCHIVED_BYTES = 13_700
"""Of a cell, in the archive."""

LEAST_CAP = 900 << 20
"""Bytes that a process with four conversions at a time needs, whatever the data."""

N_CELLS = 8_600
N_LEFT_OUT = 600


def fill(server: Server, folder: Path, bucket: str, *, n_experiments: int, n_cells: int) -> None:
    """One experiment under many accessions, and the catalog of them."""
    layout = ScBaseCount()
    make_file(folder / "experiment.h5ad", n_cells=n_cells)
    content = (folder / "experiment.h5ad").read_bytes()
    names = [f"SRX{number}" for number in range(n_experiments)]
    table = pd.DataFrame({"srx_accession": names, "obs_count": n_cells})
    table.to_parquet(folder / "metadata.parquet")
    server.make_bucket(bucket)
    metadata = (folder / "metadata.parquet").read_bytes()
    server.put(bucket, f"{layout.folder('metadata')}/sample_metadata.parquet", metadata)
    for name in names:
        server.put(bucket, f"{layout.folder('h5ad')}/{name}.h5ad", content)


def find_file(name: str) -> str | None:
    """A file of the package's rooms, `room/file`; base and threads, which all use, are left out."""
    path = Path(name)
    is_ours = path.parent.parent.name == "scdiff_data" and path.parent.name != "base"
    return f"{path.parent.name}/{path.name}" if is_ours else None


def make_shards(url: str, bucket: str, folder: Path, cell_count: int) -> dict[str, float]:
    """Seconds that the main thread spent in each file of the package."""
    recipe = Recipe(
        source=ScBaseCount(url=f"gs://{bucket}", storage_options={"endpoint_url": url}),
        cell_count=cell_count,
        n_hvgs=2_000,
        split={"by": "cell", "val": 0.05, "test": 0.05},
    )

    def innermost(frame: FrameType) -> str:
        while frame.f_back and find_file(frame.f_code.co_filename) is None:
            frame = frame.f_back
        return find_file(frame.f_code.co_filename) or "elsewhere"

    with watch_main_thread(innermost) as seconds:
        prepare(recipe, folder)
    return dict(seconds)


def run(url: str, folder: Path, cell_count: int) -> None:
    make_shards(url, "small", folder / "small", 100)
    wall, cpu = time.perf_counter(), time.process_time()
    seconds = make_shards(url, "large", folder / "large", cell_count)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall": wall, "cpu": cpu, "seconds": seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer experiments")
    parser.add_argument("--capped", action="store_true", help="memory of a quarter of the archives")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        url, folder, cell_count = arguments.run
        run(url, Path(folder), int(cell_count))
        return
    n_experiments = 12 if arguments.quick else 48
    cell_count = n_experiments * N_CELLS - N_LEFT_OUT
    with start_server() as server, tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fill(server, folder, "small", n_experiments=2, n_cells=300)
        fill(server, folder, "large", n_experiments=n_experiments, n_cells=N_CELLS)
        n_bytes = n_experiments * (folder / "experiment.h5ad").stat().st_size
        os.sync()
        command = [sys.executable, __file__, "--run", server.url, temporary, str(cell_count)]
        cap = max(cell_count * ARCHIVED_BYTES // 4, LEAST_CAP) if arguments.capped else None
        if cap is not None:
            if reason := why_not_capped():
                print(f"skipped --capped: {reason}")
                return
            print(f"memory capped at {cap / 1e6:,.0f} MB, page cache included")
        result = json.loads(run_capped(command, cap))
    wall = result["wall"]
    print(f"{cell_count:,} cells of {n_experiments} experiments, {n_bytes / 1e6:,.0f} MB fetched")
    print(f"{wall:.1f} s, {result['cpu']:.1f} s CPU: {cell_count / wall:,.0f} cells/s to shards")
    for name, seconds in sorted(result["seconds"].items(), key=lambda item: -item[1]):
        if seconds >= 0.01 * wall:
            print(f"  {name:16} {seconds:6.1f} s {100 * seconds / wall:5.0f} %")


if __name__ == "__main__":
    main()
