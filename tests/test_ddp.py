"""Two real processes, through Lightning and gloo."""

from itertools import chain
from pathlib import Path

import pytest
from witness import read_journals, run_cells

from scdiff_data import HVGDataset


@pytest.mark.parametrize("batch_size", [32, 37])
def test_ranks_see_disjoint_cells_that_are_together_complete(
    pbmc_dir: Path, tmp_path: Path, batch_size: int
) -> None:
    finished = run_cells(
        data_dir=pbmc_dir,
        out=tmp_path,
        data={"batch_size": batch_size},
        trainer={"max_epochs": 2, "devices": 2, "strategy": "ddp"},
    )
    assert finished.returncode == 0, finished.stderr
    ranks = read_journals(tmp_path)
    assert len(ranks) == 2

    cells = set(HVGDataset(pbmc_dir, split="train")[:].metadata["cell_id"].tolist())
    n_steps = len(cells) // (2 * batch_size)
    assert len(cells) % (2 * batch_size)
    orders = []
    for epoch in range(2):
        seen = []
        for events in ranks:
            batches = [cells for kind, *cells in events if kind == f"train {epoch}"]
            assert [len(batch) for batch in batches] == [batch_size] * n_steps
            seen += list(chain.from_iterable(batches))
        assert len(set(seen)) == len(seen)  # disjoint
        assert set(seen) <= cells
        assert len(cells) - len(seen) < 2 * batch_size  # complete, but for the tail
        orders.append(seen)
    assert orders[0] != orders[1]

    held_out = HVGDataset(pbmc_dir, split="val")[:].metadata["cell_id"].tolist()
    assert len(held_out) % 2
    validated = [[cells for kind, *cells in events if kind == "val"] for events in ranks]
    assert len(validated[0]) == len(validated[1])
    shown = list(chain.from_iterable(validated[0] + validated[1]))
    assert sorted(shown) == sorted(held_out * 2)  # exactly once in each of two epochs
