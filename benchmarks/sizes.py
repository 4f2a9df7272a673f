"""What scBaseCount takes at three sizes, by the plan: `python benchmarks/sizes.py`.

The plan is made as `dry_run=true` makes it, of a catalog as scBaseCount publishes it in numbers:
24,957 human 3-prime experiments, 8,600 cells a file in the mean, 12.6 kB a cell. How sizes spread
is assumed (log-normal, standard deviation 1.1, at most 526,980 cells): files that small draws meet
may be larger or smaller. Of the defaults of `configs/data/scbasecount.yaml`.
"""

import argparse
import tempfile
from pathlib import Path

from fixtures.catalog import make_holes

from scdiff_data import Recipe, plan

N_EXPERIMENTS = 24_957
SIZES = (100_000, 1_000_000, 10_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="changes nothing: it takes seconds")
    parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = make_holes(Path(temporary, "bucket"), N_EXPERIMENTS)
        for cell_count in SIZES:
            recipe = Recipe(source=source, cell_count=cell_count, max_cells_per_experiment=5_000)
            print(f"cell_count={cell_count}")
            for line in str(plan(recipe, Path(temporary, "data"))).splitlines():
                if not line.startswith(("source", "cannot be")):  # of this machine's disk
                    print(f"  {line.split('; ')[0]}")


if __name__ == "__main__":
    main()
