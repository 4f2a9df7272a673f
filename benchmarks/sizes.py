"""What scBaseCount takes at three sizes, by the plan: `python benchmarks/sizes.py`.

The plan is made as `dry_run=true` makes it, of a catalog as scBaseCount publishes it in numbers:
24,957 human 3-prime experiments, 8,600 cells a file in the mean, 12.6 kB a cell. How sizes spread
is assumed (log-normal, standard deviation 1.1, at most 526,980 cells): files that small draws meet
may be larger or smaller. Of the defaults of `configs/data/scbasecount.yaml`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from scdiff_data import Recipe, ScBaseCount, plan

N_EXPERIMENTS, MEAN_CELLS, MOST_CELLS, SPREAD = 24_957, 8_600, 526_980, 1.1
BYTES_A_CELL = 12_600
SIZES = (100_000, 1_000_000, 10_000_000)


def lay_out(folder: Path) -> ScBaseCount:
    """A bucket that has a catalog alone."""
    source = ScBaseCount(url=str(folder))
    middle = np.log(MEAN_CELLS) - SPREAD**2 / 2
    drawn = np.random.default_rng(0).lognormal(middle, SPREAD, N_EXPERIMENTS)
    n_cells = drawn.clip(1, MOST_CELLS).astype(int)
    names = [f"SRX{number:08d}" for number in range(N_EXPERIMENTS)]
    table = pd.DataFrame({"srx_accession": names, "obs_count": n_cells})
    path = folder / source.folder("metadata") / "sample_metadata.parquet"
    path.parent.mkdir(parents=True)
    table.assign(tech_10x="3_prime_gex").to_parquet(path)
    files = folder / source.folder("h5ad")
    files.mkdir(parents=True)
    for name, n in zip(names, n_cells, strict=True):  # the plan asks for sizes: holes of that size
        with (files / f"{name}.h5ad").open("wb") as file:
            file.truncate(int(n) * BYTES_A_CELL)
    return source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="changes nothing: it takes seconds")
    parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = lay_out(Path(temporary, "bucket"))
        for cell_count in SIZES:
            recipe = Recipe(source=source, cell_count=cell_count, max_cells_per_experiment=5_000)
            print(f"cell_count={cell_count}")
            for line in str(plan(recipe, Path(temporary, "data"))).splitlines():
                if not line.startswith(("source", "cannot be")):  # of this machine's disk
                    print(f"  {line.split('; ')[0]}")


if __name__ == "__main__":
    main()
