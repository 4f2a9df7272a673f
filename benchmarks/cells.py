"""Memory that drawing cells takes, a cell: `python benchmarks/cells.py`.

Synthetic archives hold cells alone, 500,000 each, with ids of 26 bytes and two labels. The table of
all cells is drawn and written in a process of its own, from a few archives and from three times as
many; the difference of the peaks over the difference of the cells counts. Labels, splits by cell.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from fixtures.goals import print_goal
from fixtures.memory_cap import peak_bytes

from scdiff_data import Recipe, SimulatedAtlas
from scdiff_data.base.hdf5_writing import write_frame
from scdiff_data.pipeline.cell_table import draw_cells
from scdiff_data.sources.catalog import CatalogRow
from scdiff_data.store.layout import DataDirectory

N_EACH = 500_000


def make_archive(path: Path) -> None:
    rng = np.random.default_rng(0)
    words = [f"cell type {i}" for i in range(60)]
    frame = pd.DataFrame(
        {
            "total_counts": rng.integers(500, 30_000, N_EACH),
            "n_genes": rng.integers(300, 6_000, N_EACH).astype(np.int32),
            "cell_type": pd.Categorical.from_codes(rng.integers(0, 60, N_EACH), words),
        },
        index=[f"SRX00000000_BARCODE{i:07d}" for i in range(N_EACH)],
    )
    with h5py.File(path, "w") as file:
        file.create_group("X").attrs["shape"] = np.array([N_EACH, 1])
        write_frame(file, "obs", frame)


def run(folder: Path, n: int) -> dict[str, float]:
    recipe = Recipe(source=SimulatedAtlas(), split={"by": "cell"}, labels=["cell_type", "tissue"])
    names = [f"E{number:04d}" for number in range(n)]
    catalog = {k: CatalogRow(k, "", N_EACH, None, None, columns={"tissue": k}) for k in names}
    archives = dict.fromkeys(names, folder / "cells.h5ad")
    started = time.perf_counter()
    cells = draw_cells(recipe, DataDirectory(folder / "data"), archives, catalog)
    seconds = time.perf_counter() - started
    peak = peak_bytes()
    return {"cells": len(cells), "seconds": seconds, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a third of the cells")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        print(json.dumps(run(Path(arguments.run[0]), int(arguments.run[1]))))
        return
    few = 2 if arguments.quick else 6
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_archive(folder / "cells.h5ad")
        found = []
        for n in (few, 3 * few):
            command = [sys.executable, __file__, "--run", temporary, str(n)]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.append(json.loads(output.stdout))
            shutil.rmtree(folder / "data")
            n_cells, seconds, peak = (found[-1][k] for k in ("cells", "seconds", "peak"))
            rate = n_cells / seconds
            print(f"{n_cells:,} cells: {seconds:.1f} s, {rate:,.0f} cells/s, {peak / 1e6:,.0f} MB")
    small, large = found
    each = (large["peak"] - small["peak"]) / (large["cells"] - small["cells"])
    print_goal("table_bytes_a_cell", each, "<=", 50, digits=1)


if __name__ == "__main__":
    main()
