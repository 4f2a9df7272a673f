"""All of scBaseCount, worked out from measured rates: `python benchmarks/scbasecount.py`.

Nothing is measured here. Each figure below has its source in the help of the argument that changes
it (`--help`); rates of this machine's cores are those of `results/scale.md`. What divides among
nodes is an experiment's or a shard's work; what does not is the table of cells, the choice of genes
and the seal, which one process does. Downloads, conversion and the disk work at the same time, so
the slowest of them takes as long as all. Prices are those
of the pages named, in copies read in November 2026 that bear no date: look them up.
"""

import argparse
from collections.abc import Iterator, Sequence

TERABYTE, HOUR = 1e12, 3600.0

FIGURES: dict[str, tuple[float, str]] = {
    "cells": (302e6, "human cells of release 2026-01-12, by its publisher"),
    "experiments": (35_263, "human experiments of that release, by its publisher"),
    "file-bytes": (12_600, "of a cell in its file: the mean of that release"),
    "passing": (0.72, "of the cells, as pass 300 genes and 500 counts: 153.5 of 214.1 million"),
    "archive-bytes": (13_700, "of a cell of 2,270 expressed genes in its archive: prepare.py"),
    "experiment-mb": (6.5, "of an experiment's archive and statistics beside its cells: scale.md"),
    "table-bytes": (12, "of a cell in the table of cells: scale.md"),
    "dense-bytes": (4_064, "of a cell in dense shards of 2,000 genes: results/sizes.md"),
    "compact-bytes": (735, "likewise, in compact ones: results/sizes.md"),
    "cell-us": (92, "a core's time for a cell, of what divides: scale.md, `cores`"),
    "experiment-ms": (70, "a core's time for an experiment, whatever its cells: scale.md"),
    "serial-us": (4.9, "a core's time for a cell, of what does not divide: scale.md, `cores`"),
    "threads-rate": (28_073, "cells/s that one process makes on 16 cores: scale.md, `cores`"),
    "memory-bytes": (9.2, "more of memory for a cell: scale.md, `prepare`"),
    "experiment-kb": (40, "more of memory for an experiment: scale.md"),
    "cores": (16, "of a node; assumed"),
    "network-mb": (1_250, "a second that a node gets from the bucket: 10 Gbit/s; assumed"),
    "disk-mb": (1_000, "a second that a node's disk reads or writes; assumed"),
    "node-price": (
        0.76,
        "$ an hour: two n1-standard-8, cloud.google.com/compute/disks-image-pricing",
    ),
    "disk-price": (0.17, "$ a GB and month of SSD, cloud.google.com/compute/disks-image-pricing"),
    "traffic-price": (0.12, "$ a GB to elsewhere, cloud.google.com/storage/pricing-examples"),
    "gpu-price": (39.33, "$ an hour, 8 x H100: aws.amazon.com/ec2/capacityblocks/pricing, of 2024"),
    "one-gpu": (17_343, "cells/s that an H100 trains of `model=small`: results/gpu.md"),
    "known-rate": (31_900, "cells/s of a scGPT of 51 M weights on 8 x H100, as SLAF published"),
    "loader": (1_345_623, "cells/s that a core loads from memory: results/loader.md"),
    "loader-disk": (308_129, "… dense, by windows, of data four times the memory: beyond.md"),
}
"""What the calculation takes, and where it is from."""

N_NODES = (1, 2, 4, 8, 16, 32)


def describe_disk(given: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Bytes by what they are of, in terabytes."""
    kept = given.cells * given.passing
    yield "to fetch, once", given.cells * given.file_bytes / TERABYTE
    archives = kept * given.archive_bytes + given.experiments * given.experiment_mb * 1e6
    yield "archives and statistics", archives / TERABYTE
    yield "table of cells", kept * given.table_bytes / TERABYTE
    for name, each in (("compact", given.compact_bytes), ("dense", given.dense_bytes)):
        rest = archives + kept * (each + given.table_bytes)
        yield f"{name} shards", kept * each / TERABYTE
        yield f"  at rest, {name}", rest / TERABYTE
        yield f"  at the peak, {name}", (rest + kept * given.compact_bytes) / TERABYTE
        yield f"  of it shards and table, {name}", kept * (each + given.table_bytes) / TERABYTE


def describe_hours(given: argparse.Namespace, n_nodes: int) -> dict[str, float]:
    """Hours of each part on so many nodes."""
    kept = given.cells * given.passing
    network = given.cells * given.file_bytes / (given.network_mb * 1e6)
    seconds = kept * given.cell_us / 1e6 + given.experiments * given.experiment_ms / 1e3
    # Written: the fetched file, archive, packed rows, shards. Read: file, archive twice, rows.
    written = given.cells * given.file_bytes + kept * (given.archive_bytes + given.compact_bytes)
    moved = written + kept * (2 * given.archive_bytes + 2 * given.compact_bytes)
    parts = {
        "network": network / n_nodes,
        "cores": seconds / given.cores / n_nodes,
        "disk": moved / (given.disk_mb * 1e6) / n_nodes,
        "one process": kept * given.serial_us / 1e6,
    }
    return {name: value / HOUR for name, value in parts.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="changes nothing: it takes no time")
    for name, (value, source) in FIGURES.items():
        parser.add_argument(f"--{name}", type=float, default=value, help=f"{value:,g}: {source}")
    given = parser.parse_args(arguments)
    kept = given.cells * given.passing
    print(f"{given.cells:,.0f} cells of {given.experiments:,.0f} experiments, {kept:,.0f} pass QC")
    print("\nterabytes")
    disk = dict(describe_disk(given))
    for name, terabytes in disk.items():
        print(f"  {name:32} {terabytes:8.3f}")
    memory = kept * given.memory_bytes / 1e9 + given.experiments * given.experiment_kb / 1e6
    print(f"memory of prepare: {memory:.1f} GB above its base, in one process")
    print(f"shards of 10,000 cells: {kept / 1e4:,.0f}; of 100,000: {kept / 1e5:,.0f}")

    print(f"\nhours on nodes of {given.cores:.0f} cores")
    names = list(describe_hours(given, 1))
    print(f"{'nodes':>7}" + "".join(f"{name:>13}" for name in (*names, "together", "binds", "$")))
    for n_nodes in N_NODES:
        hours = describe_hours(given, n_nodes)
        divided = {name: hours[name] for name in names[:-1]}
        together = max(divided.values()) + hours["one process"]
        binds = max(hours, key=hours.__getitem__)
        price = n_nodes * max(divided.values()) + hours["one process"]
        row = [*(f"{hours[name]:.2f}" for name in names), f"{together:.2f}", binds]
        print(
            f"{n_nodes:7}" + "".join(f"{t:>13}" for t in (*row, f"{price * given.node_price:.0f}"))
        )

    today = kept / given.threads_rate / HOUR
    print(f"by one process and its threads: {today:.1f} h of {given.cores:.0f} cores")

    print("\ndollars")
    peak, rest = (disk[f"  at {when}, compact"] * 1e3 for when in ("the peak", "rest"))
    month = given.disk_price * rest
    print(f"  disk: {rest:,.0f} GB at rest, {month:,.0f} a month; at the peak {peak:,.0f} GB")
    shards = disk["  of it shards and table, compact"] * 1e3
    print(
        f"  of it shards and their table alone: {shards:,.0f} GB, {given.disk_price * shards:,.0f}"
    )
    fetched = disk["to fetch, once"] * 1e3
    print(f"  traffic within the bucket's region 0, elsewhere {fetched * given.traffic_price:,.0f}")
    print(f"  8 x H100: {given.gpu_price:.2f} an hour")

    print("\ntraining, a node of 8 x H100")
    for what, rate in (("scGPT of 51 M", given.known_rate), ("model=small", 8 * given.one_gpu)):
        epoch = kept / rate / HOUR
        print(
            f"  {what:14} eats {rate:9,.0f} cells/s: {rate / given.loader:.2f} cores from memory, "
            f"{rate / given.loader_disk:.2f} from disk; an epoch {epoch:.1f} h, "
            f"{epoch * given.gpu_price:,.0f} $"
        )
        for name, each in (("compact", given.compact_bytes), ("dense", given.dense_bytes)):
            print(f"{'':17}{name} shards: {rate * each / 1e6:,.0f} MB/s")


if __name__ == "__main__":
    main()
