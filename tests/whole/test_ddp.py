"""Two real processes, through Lightning and gloo."""

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from scdiff_data import HVGDataset
from support.cases import TESTS


@pytest.mark.parametrize("batch_size", [32, 37])
def test_ranks_see_disjoint_cells_that_are_together_complete(
    pbmc_dir: Path, tmp_path: Path, batch_size: int
) -> None:
    command = [
        sys.executable,
        "-m",
        "support.ddp_cells",
        str(pbmc_dir),
        str(tmp_path),
        str(batch_size),
    ]
    subprocess.run(command, cwd=TESTS, check=True, timeout=120)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]

    cells = set(HVGDataset(pbmc_dir, split="train")[:].metadata["cell_id"].tolist())
    n_steps = len(cells) // (2 * batch_size)
    orders = []
    for epoch in range(2):
        seen = []
        for rank in ranks:
            batches = rank["train"][epoch * n_steps : (epoch + 1) * n_steps]
            assert [len(batch) for batch in batches] == [batch_size] * n_steps
            seen += list(chain.from_iterable(batches))
        assert len(set(seen)) == len(seen)  # disjoint
        assert set(seen) <= cells
        assert len(cells) - len(seen) < 2 * batch_size  # complete, but for the tail
        orders.append(seen)
    assert orders[0] != orders[1]

    held_out = HVGDataset(pbmc_dir, split="val")[:].metadata["cell_id"].tolist()
    assert len(ranks[0]["val"]) == len(ranks[1]["val"])
    validated = list(chain.from_iterable(ranks[0]["val"] + ranks[1]["val"]))
    assert sorted(validated) == sorted(held_out * 2)  # exactly once in each of two epochs
