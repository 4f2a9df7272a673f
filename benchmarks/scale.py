"""How time, memory and disk grow with the data: `python benchmarks/scale.py [PART ...]`.

Each point runs in a process of its own that has done the same on a small scale before, while the
page cache has nearly all memory. Sizes take turns. Of repeated points the fastest counts, but of
`prepare` their mean: a machine's slow seconds are in every large point, and would be in no small
one. Rounds in which other processes had a twentieth of the cores do not count there; where all of a
size are such ("0"), the quietest does. The parts:

`prepare`: one simulated experiment (10,000 cells x 36,601 genes, 570 expressed a cell) under many
accessions, links to one file; archives and compact shards of 2,000 genes are really written, to the
folder's disk and, up to a million cells, to /dev/shm. Buffers may take 256 MB. `to sync` is what
the disk still had to write afterwards, `plainly` the time of a plain write of as many bytes.
`experiments`: likewise, of 50 cells each; up to 300 of them in /dev/shm, too.
`cores`: ten experiments of 2,270 expressed genes a cell, in /dev/shm, on one core and on two.
`draw`: the table of cells, from archives without counts.
`load`: batches from dense shards without a byte of counts, links to one that is in memory.
`sample`: row numbers for one rank of eight.
`plan`: of catalogs as wide as scBaseCount's, which their source gives in batches.
`ranks`: eight processes that train on the machine's cores.

`--folder` keeps what was measured: a run that was cut off goes on, and parts can be measured one
at a time. Exponents: of time, base + b n^k is fitted to all sizes; of memory, of the whole process,
and of `load`'s and `sample`'s time a cell, it is the slope of a line through the logarithms.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from fixtures.goals import print_goal
from fixtures.growth import fit_growth, fit_slope, megabytes, print_memory, print_table
from fixtures.scale_points import SHUFFLES, Measured, list_jobs

DIVIDING = ("fetch", "archive", "sum genes", "records", "sort", "shards")
"""Stages of prepare whose work is an experiment's or a shard's: they divide among machines too."""


def report_prepare(measured: Measured) -> None:
    points, in_memory = measured.means("prepare"), measured.means("prepare", "memory")
    heads = ("cells", "s", "cells/s", "CPU us/cell", "in memory s", "memory")
    rows = []
    for n, found in points.items():
        cells, seconds = found["cells"], found["seconds"]
        there = f"{in_memory[n]['seconds']:.1f}" if n in in_memory else "-"
        cpu = f"{1e6 * found['cpu'] / cells:.1f}"
        known = f"{cells:,}", f"{seconds:.1f}", f"{cells / seconds:,.0f}", cpu, there
        disk = found["disk"]
        rest = sum(disk.values()) - disk["cells"] - disk["processed"]
        sizes = found["peak"], disk["cells"], disk["processed"], rest
        rounds = f"{found['rounds']}, {in_memory[n]['rounds'] if n in in_memory else '-'}"
        rows.append((*known, *map(megabytes, sizes), rounds))
    print_table("prepare", (*heads, "archives", "shards", "the rest", "rounds"), rows)
    most = max(points)
    left, plainly = (points[most][by] for by in ("left", "plainly"))
    print(f"of {10_000 * most:,}: {left:.1f} s to sync; plainly {plainly:.1f} s")
    base, on_disk = fit_growth(points, (found["seconds"] for found in points.values()))
    _, exponent = fit_growth(in_memory, (found["seconds"] for found in in_memory.values()))
    _, of_cpu = fit_growth(points, (found["cpu"] for found in points.values()))
    figure = points[1]["stages"].get("figure", 0)
    print(f"fixed: {base:.1f} s; of it the picture of genes takes {figure:.1f} s")
    # Below, buffers are still smaller than what they may take.
    print_memory(
        "prepare",
        {10_000 * n: found for n, found in points.items() if n >= min(30, max(points) // 3)},
    )
    print_goal("prepare_time_exponent_on_disk", on_disk, "<=", 1.02, digits=3)
    print_goal("prepare_time_exponent_in_memory", exponent, "<=", 1.02, digits=3)
    print_goal("prepare_cpu_exponent", of_cpu, "<=", 1.02, digits=3)


def report_simple(measured: Measured, part: str, unit: str) -> None:
    """A table of sizes, seconds and memory, and the exponents."""
    points = measured.points(part)
    if part == "draw":
        points = {found["cells"]: found for found in points.values()}
    rows = [
        (f"{n:,}", f"{f['seconds']:.2f}", f"{n / f['seconds']:,.0f}", megabytes(f["peak"]))
        for n, f in points.items()
    ]
    print_table(part, (unit, "s", f"{unit}/s", "memory"), rows)
    seconds = [found["seconds"] for found in points.values()]
    _, exponent = fit_growth(points, seconds)
    if part == "draw":  # three sizes, and none so small that a base would count
        exponent = fit_slope(points, seconds)
        sizes, peaks = list(points), [found["peak"] for found in points.values()]
        each = (peaks[-1] - peaks[0]) / (sizes[-1] - sizes[0])
        print_goal("table_bytes_a_cell", each, "<=", 50, digits=1)
    else:
        print_memory(part, points)
    print_goal(f"{part}_time_exponent", exponent, "<=", 1.02, digits=3)
    if part == "experiments":
        in_memory = measured.points(part, "memory")
        for name, these in (("", points), ("_in_memory", in_memory)):
            _, of_cpu = fit_growth(these, (found["cpu"] for found in these.values()))
            print_goal(f"{part}_cpu_exponent{name}", of_cpu, "<=", 1.02, digits=3)
        _, exponent = fit_growth(in_memory, (found["seconds"] for found in in_memory.values()))
        print_goal(f"{part}_time_exponent_in_memory", exponent, "<=", 1.02, digits=3)
        print("CPU, ms each: " + ", ".join(f"{1e3 * f['cpu'] / n:.1f}" for n, f in points.items()))


def report_cores(measured: Measured) -> None:
    """Stages on one core and on two, and what that says of more."""
    points = measured.points("cores")
    one, two = points[1]["stages"], points[2]["stages"]
    n = points[1]["cells"]
    rows, serial = [], {}
    for stage in sorted(one, key=one.__getitem__, reverse=True):
        # Karp and Flatt: what part would explain the gain, if one part divides and one does not.
        serial[stage] = min(1.0, max(0.0, 2 * two.get(stage, 0) / one[stage] - 1))
        rows.append(
            (stage, f"{one[stage]:.2f}", f"{two.get(stage, 0):.2f}", f"{serial[stage]:.2f}")
        )
    heads = ("stage", "1 core, s", "2 cores, s", "serial")
    print_table(f"cores ({n:,} cells of 2,270 expressed genes)", heads, rows)
    for n_cores in (1, 2, 16, 64):
        threads = sum(one[s] * (serial[s] + (1 - serial[s]) / n_cores) for s in one)
        apart = sum(one[s] / (n_cores if s in DIVIDING else 1) for s in one)
        print(
            f"{n_cores:3} cores: {n / threads:8,.0f} cells/s with its threads, "
            f"{n / apart:8,.0f} if {', '.join(DIVIDING)} divide wholly"
        )


def report_load(measured: Measured) -> None:
    points = measured.points("load", by="first")
    named = {f"{n:,}": found for n, found in points.items()}
    for name in ("302 M, shards of 100,000", "302 M, shards of 10,000"):
        named[name] = measured.points("load", name, by="first")[10**9]
    rows = [
        (
            name,
            f"{f['rate']:,.0f}",
            f"{f['first']:.2f}",
            f"{f['map']:.1f}",
            megabytes(f["peak"]),
        )
        for name, f in named.items()
    ]
    print("\nload")
    for name, *row in [("cells", "cells/s", "1st batch s", "map all s", "memory"), *rows]:
        print(f"{name:>26}" + "".join(f"{text:>14}" for text in row))
    rates = {n: max(found["rate"] for found in measured.found[f"load/{n}/"]) for n in points}
    slope = fit_slope(rates, (1 / rate for rate in rates.values()))
    print_memory("load", points)
    print_goal("load_epoch_exponent", 1 + slope, "<=", 1.02, digits=3)
    print_goal("open_a_billion_cells_s", points[10**9]["first"], "<=", 0.5)


def report_sample(measured: Measured) -> None:
    found = {shuffle: measured.points("sample", shuffle, by="ns") for shuffle in SHUFFLES}
    rows = [
        (
            f"{n:,}",
            *(f"{found[s][n]['ns']:.1f}" for s in SHUFFLES),
            f"{1e3 * max(found[s][n]['first'] for s in SHUFFLES):.2f}",
            megabytes(max(found[s][n]["peak"] for s in SHUFFLES)),
        )
        for n in found["window"]
    ]
    heads = ("cells", "window, ns", "global, ns", "1st batch ms", "memory")
    print_table("sample: of a row, and from the middle of an epoch to its first batch", heads, rows)
    for shuffle, points in found.items():
        slope = fit_slope(points, (f["ns"] for f in points.values()))
        print_goal(f"sample_{shuffle}_epoch_exponent", 1 + slope, "<=", 1.02, digits=3)
    print_memory("sample", found["window"])


def report_ranks(measured: Measured) -> None:
    print("\nranks, eight processes on this machine's cores, 32 cells a rank")
    for name in list_jobs("ranks", 8, quick=False):
        (found,) = measured.points("ranks", name, by="step").values()
        print(f"{name:24} {found['step']:8.3f} s a step, of which the loader {found['share']:.4f}")
        if "demo" in name:
            print_goal("loader_share_of_8_ranks", found["share"], "<=", 0.02, digits=4)


REPORTS: Mapping[str, Callable[[Measured], None]] = {
    "prepare": report_prepare,
    "experiments": lambda measured: report_simple(measured, "experiments", "experiments"),
    "cores": report_cores,
    "draw": lambda measured: report_simple(measured, "draw", "cells"),
    "load": report_load,
    "sample": report_sample,
    "plan": lambda measured: report_simple(measured, "plan", "experiments"),
    "ranks": report_ranks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="; ".join(REPORTS) + "; none are all")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller sizes")
    parser.add_argument("--folder", type=Path, help="where data and what was measured are kept")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(REPORTS):
        parser.error(f"there are no parts {sorted(unknown)}; there are {list(REPORTS)}")
    with TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        measured = Measured(folder, quick=arguments.quick)
        measured.start({"what": "set up"})
        for part in arguments.parts or REPORTS:
            measured.run(part)
        for part in arguments.parts or REPORTS:
            REPORTS[part](measured)


if __name__ == "__main__":
    main()
