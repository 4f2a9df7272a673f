"""Two real processes, through Lightning and gloo."""

import json
from itertools import chain
from pathlib import Path

import pytest

from scdiff_data import HVGDataset
from support import forks
from support.cases import TESTS

RUNS = {
    "global": {"batch_size": 32},
    "windows": {"batch_size": 37, "window_size": 128, "run_size": 8},
}


@pytest.fixture(scope="module")
def seen(pbmc_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what each rank saw in each run."""
    out = tmp_path_factory.mktemp("seen")
    finished = forks.run("support.ddp_cells", str(pbmc_dir), str(out), json.dumps(RUNS), cwd=TESTS)
    assert finished.returncode == 0, finished.stderr
    return out


@pytest.mark.parametrize("name", RUNS)
def test_ranks_see_disjoint_cells_that_are_together_complete(
    pbmc_dir: Path, seen: Path, name: str
) -> None:
    files = [seen / f"{name}-rank{rank}.json" for rank in range(2)]
    ranks = [json.loads(file.read_text()) for file in files]
    batch_size = RUNS[name]["batch_size"]

    cells = set(HVGDataset(pbmc_dir, split="train")[:].metadata["cell_id"].tolist())
    n_steps = len(cells) // (2 * batch_size)
    orders = []
    for epoch in range(2):
        shown = []
        for rank in ranks:
            batches = rank["train"][epoch * n_steps : (epoch + 1) * n_steps]
            assert [len(batch) for batch in batches] == [batch_size] * n_steps
            shown += list(chain.from_iterable(batches))
        assert len(set(shown)) == len(shown)  # disjoint
        assert set(shown) <= cells
        assert len(cells) - len(shown) < 2 * batch_size  # complete, but for the tail
        orders.append(shown)
    assert orders[0] != orders[1]

    held_out = HVGDataset(pbmc_dir, split="val")[:].metadata["cell_id"].tolist()
    assert len(ranks[0]["val"]) == len(ranks[1]["val"])
    validated = list(chain.from_iterable(ranks[0]["val"] + ranks[1]["val"]))
    assert sorted(validated) == sorted(held_out * 2)  # exactly once in each of two epochs
