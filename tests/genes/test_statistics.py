"""Statistics on disk: read back exactly; of other cells or damaged, they are made again."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from scdiff_data import prepare
from scdiff_data.base.threads import Workers
from scdiff_data.genes.statistics import read_statistics, write_statistics
from scdiff_data.genes.sums import GeneStatistics, sum_genes
from support.cases import digest_tree, pbmc_recipe


def test_what_is_written_is_read_back_to_the_bit(pbmc_dir: Path, tmp_path: Path) -> None:
    split_of_row = np.random.default_rng(0).integers(-1, 3, 100).astype(np.int8)
    by_split = sum_genes(pbmc_dir / "cells" / "PBMC02.h5ad", split_of_row, Workers(1))
    write_statistics(tmp_path / "s.npz", "key", by_split)
    stored = read_statistics(tmp_path / "s.npz")
    assert list(stored) == list(by_split)
    for split, sums in by_split.items():
        for field in fields(GeneStatistics):
            found = getattr(stored[split], field.name)
            assert np.array_equal(found, getattr(sums, field.name)), field.name


@pytest.mark.parametrize("damage", ["truncated", "empty", "missing", "other cells"])
def test_statistics_of_other_cells_or_damaged_ones_are_made_again(
    data_dir: Path, damage: str
) -> None:
    before = digest_tree(data_dir)
    path = data_dir / "statistics" / "PBMC03.npz"
    if damage == "missing":
        path.unlink()
    elif damage == "other cells":
        write_statistics(path, "another", read_statistics(path))
    else:
        path.write_bytes(path.read_bytes()[: 5000 if damage == "truncated" else 0])
    (data_dir / "config.json").unlink()
    prepare(pbmc_recipe(), data_dir)
    assert digest_tree(data_dir) == before
