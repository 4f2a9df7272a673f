"""Training from shards in a bucket: `python benchmarks/bucket.py`.

Dense shards of 10,000 cells lie in a server of this machine. Against each other, in processes of
their own and in rounds, into memory where there is a folder in it (`--folder` names another):

- a plain parallel download of the same shards (`fs.get`, four at a time, nothing is checked);
- an epoch over a new local copy, from an empty folder to the last batch, with whole shards as runs
  (`run_size=10000`) and with runs of 256 rows, whose first batch needs nearly all shards;
- later epochs of that copy, in the minute of epochs over the directory that was sent;
- the same with a limit of fewer bytes than the data, and what comes again for it;
- mosaicml-streaming over its own store of the same rows, where it is installed.

Server, download and loader share this machine's cores, so no network is the bound, and what each
byte costs the processor shows: SHA-256 of all that comes, above all. So the epochs are measured
behind a link of 150 MB/s as well, as a node has it that shares 10 Gbit/s with seven others.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from fixtures.bucket import start_server
from fixtures.goals import print_goal

BUCKET = "prepared"
MEMORY = Path("/dev/shm")
LINK_BYTES = 150e6
"""Bytes a second of the link."""


def job_plain(url: str, own: Path, folder: Path) -> dict[str, float]:
    """Download the shards without looking at them."""
    del own
    started = time.perf_counter()
    import fsspec

    file_system, root = fsspec.url_to_fs(url)
    names = [path for path in file_system.find(root) if "/processed/" in path]
    folder.mkdir()
    file_system.get(names, [str(folder / Path(path).name) for path in names], batch_size=4)
    return {"first": time.perf_counter() - started}


def job_epochs(
    url: str, own: Path, folder: Path, *, run_size: int = 10_000, n_shards: int | None = None
) -> dict[str, float]:
    """Epochs of a new copy, and beside them those of the directory that was sent."""
    import torch

    from scdiff_data import Manifest, create_hvg_dataloader, fetch_processed

    torch.set_num_threads(1)
    manifest = Manifest.read(own)
    sizes = [entry.size for entry in manifest.shard_entries]
    settings: dict[str, Any] = {"run_size": run_size, "labels": []}
    there = create_hvg_dataloader(own, 128, **settings)
    next(iter(there))  # compiles
    started = time.perf_counter()
    limit = None if n_shards is None else n_shards * max(sizes)
    fetch_processed(url, folder, local_limit=limit)
    here = create_hvg_dataloader(folder, 128, **settings)
    found = {"first": _iterate(here, started)[1]}
    if n_shards is None:
        ratios = []
        for number in range(6):
            pair = [there, here] if number % 2 else [here, there]
            rates = {id(loader): _iterate(loader, time.perf_counter()) for loader in pair}
            (n, seconds), (_, others) = rates[id(here)], rates[id(there)]
            ratios.append(others / seconds)
        found |= {"steady": statistics.median(ratios), "rate": n / seconds}
    else:
        changed = time.time_ns()
        n, seconds = _iterate(here, time.perf_counter())
        paths = (folder / "processed").iterdir()
        left = sum(path.stat().st_size for path in paths if path.stat().st_mtime_ns > changed)
        found |= {"rate": n / seconds, "seconds": seconds, "kept": left}
    return found


def _iterate(loader: Any, started: float) -> tuple[int, float]:
    n_cells = sum(len(batch[0]) for batch in loader)
    return n_cells, time.perf_counter() - started


def job_streaming(url: str, own: Path, folder: Path) -> dict[str, float]:
    """An epoch of mosaicml-streaming from a folder that stands for a bucket, and a later one."""
    del url
    import numpy as np

    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):  # an index may have none that fits this torch
        stand_in_for_pictures()
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    from scdiff_data import HVGDataset

    cells, store = HVGDataset(own), folder.with_name("mds")
    if not store.exists():
        with MDSWriter(out=str(store), columns={"x": "ndarray:int16:2000"}) as writer:
            for start in range(0, min(len(cells), 100_000), 1_000):
                for row in cells[start : start + 1_000].expression.numpy():
                    writer.write({"x": np.ascontiguousarray(row)})
    started = time.perf_counter()
    rows = StreamingDataset(
        remote=str(store), local=str(folder), shuffle=True, batch_size=128, num_canonical_nodes=1
    )
    seconds = []
    for _ in range(2):
        n_cells = sum(len(batch["x"]) for batch in DataLoader(rows, batch_size=128))
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    return {"first": seconds[0], "rate": n_cells / seconds[1], "n": n_cells}


def stand_in_for_pictures() -> None:
    """Stand in for torchvision, which streaming imports for data sets of pictures."""
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    class Anything(ModuleType):
        __path__: list[str] = []  # noqa: RUF012

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    for part in ("", ".datasets", ".datasets.folder", ".io", ".transforms"):
        name = f"torchvision{part}"
        sys.modules[name] = Anything(name)
        sys.modules[name].__spec__ = ModuleSpec(name, None)
    sys.modules["torchvision.transforms.functional"] = sys.modules["torchvision.transforms"]


JOBS = {
    "plain download": (job_plain, {}),
    "ours, runs of whole shards": (job_epochs, {}),
    "ours, runs of 256": (job_epochs, {"run_size": 256}),
    "ours, 10 shards at a time": (job_epochs, {"n_shards": 10}),
    "mosaicml-streaming": (job_streaming, {}),
}


def run(name: str, url: str, own: Path, folder: Path, environment: dict[str, str]) -> Any:
    """A job in a process of its own; None if it fails."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, __file__, "--job", name, url, str(own), str(folder)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    shutil.rmtree(folder, ignore_errors=True)
    if done.returncode:
        print(f"skipped {name}: {done.stderr.strip().splitlines()[-1]}")
        return None
    return json.loads(done.stdout.splitlines()[-1])


class Link:
    """A proxy before the server, through which so many bytes pass a second."""

    def __init__(self, url: str) -> None:
        import http.client
        import http.server
        from urllib.parse import urlsplit

        target, lock, free_at = urlsplit(url), threading.Lock(), [0.0]

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                connection = http.client.HTTPConnection(target.hostname, target.port)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                connection.request("GET", self.path, headers=headers)
                response = connection.getresponse()
                body = response.read()
                connection.close()
                self.send_response(response.status)
                for key in ("Content-Type", "Content-Range"):
                    if response.headers[key]:
                        self.send_header(key, response.headers[key])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                for start in range(0, len(body), 1 << 18):
                    part = body[start : start + (1 << 18)]
                    with lock:
                        now = time.perf_counter()
                        free_at[0] = max(free_at[0], now) + len(part) / LINK_BYTES
                    time.sleep(max(free_at[0] - now, 0))
                    self.wfile.write(part)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--folder", type=Path, default=MEMORY if MEMORY.is_dir() else None)
    parser.add_argument("--job", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        name, url, own, folder = arguments.job
        function, settings = JOBS[name]
        print(json.dumps(function(url, Path(own), Path(folder), **settings)))
        return
    import fsspec
    from fixtures.large import make_archive, multiply_shards

    from scdiff_data import Manifest
    from scdiff_data.remote import PreparedBucket, send

    n_shards = 25
    with start_server() as server, tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder, own = Path(temporary), Path(temporary) / "own"
        multiply_shards(make_archive(folder).path, own, n_shards)
        shutil.rmtree(folder / "source")
        manifest = Manifest.read(own)
        n_bytes = sum(entry.size for entry in manifest.shard_entries)
        server.make_bucket(BUCKET)
        options = {"endpoint_url": server.url, "token": "anon"}
        fsspec.config.conf["gs"] = options  # processes to come are told by their environment
        url = f"gs://{BUCKET}/data"
        started = time.perf_counter()
        send(manifest, PreparedBucket(url), n_threads=4)
        seconds = time.perf_counter() - started
        print(f"{n_shards} shards of {n_bytes / n_shards / 1e6:.0f} MB, sent at ", end="")
        print(f"{n_bytes / seconds / 1e6:.0f} MB/s")
        link = Link(server.url)
        environments = {
            "this machine alone": {"FSSPEC_GS": json.dumps(options)},
            "150 MB/s": {"FSSPEC_GS": json.dumps(options | {"endpoint_url": link.url})},
        }
        results: dict[tuple[str, str], list[dict[str, float]]] = {}
        left_out = set()
        for _ in range(3 if arguments.quick else 7):
            for kind, environment in environments.items():
                for name in JOBS:
                    is_once = name == "mosaicml-streaming" and kind != "this machine alone"
                    if name in left_out or is_once:
                        continue
                    found = run(name, url, own, folder / "local", environment)
                    if found is None:
                        left_out.add(name)
                    else:
                        results.setdefault((kind, name), []).append(found)
    report(results, n_bytes)


def report(results: dict[tuple[str, str], list[dict[str, float]]], n_bytes: int) -> None:
    def median(key: tuple[str, str], column: str) -> float:
        known = [row[column] for row in results.get(key, []) if column in row]
        return statistics.median(known) if known else float("nan")

    print(f"\n{'':32} {'first epoch s':>13} {'MB/s':>6} {'/ plain':>8} {'later, cells/s':>15}")
    ratios: dict[tuple[str, str], float] = {}
    for (kind, name), rows in results.items():
        plain = results[kind, "plain download"]
        pairs = zip(rows, plain, strict=False)
        ratios[kind, name] = statistics.median(p["first"] / r["first"] for r, p in pairs)
        first = median((kind, name), "first")
        line = f"{name:32} {first:13.2f} {n_bytes / first / 1e6:6.0f} {ratios[kind, name]:8.2f}"
        if name == "mosaicml-streaming":
            line = f"{name:32} {first:13.2f} {'':6} {'':8}"
        print(f"{line} {median((kind, name), 'rate'):15,.0f}   {kind}")
    alone, whole = "this machine alone", "ours, runs of whole shards"
    print(f"alone, with each core's share of the server's work: {ratios[alone, whole]:.2f}")
    steady = median((alone, whole), "steady")
    print_goal("bucket_steady_vs_local", steady, ">=", 0.95)
    print_goal("bucket_first_epoch_vs_download", ratios["150 MB/s", whole], ">=", 0.9)


if __name__ == "__main__":
    main()
