"""Two real processes get disjoint cells, whoever drives them; parts of one model get the same."""

import json
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from scdiff_data import HVGDataset
from support import forks
from support.cases import TESTS


@pytest.fixture(scope="module")
def seen(pbmc_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, list[str]]]:
    """What each rank saw in each run."""
    out = tmp_path_factory.mktemp("ranks")
    finished = forks.run("support.rank_cells", str(pbmc_dir), str(out), cwd=TESTS)
    assert finished.returncode == 0, finished.stderr
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(2)]


def ids(folder: Path, split: str) -> list[str]:
    return HVGDataset(folder, split=split).read_ids().tolist()


@pytest.mark.parametrize(
    "run",
    [
        *("bare", "outer", "not injected", "sharded"),
        *("fabric", "fabric, datamodule"),
        *("plain", "plain, all genes", "plain, workers", "plain, datamodule", "plain, own"),
    ],
)
def test_ranks_train_on_disjoint_cells_equally_many_full_batches(
    pbmc_dir: Path, seen: list[dict[str, list[str]]], run: str
) -> None:
    first, second = (rank[run] for rank in seen)
    cells = ids(pbmc_dir, "train")
    assert len(first) == len(second) == len(cells) // 64 * 32
    assert len({*first, *second}) == 2 * len(first)
    assert {*first, *second} <= {*cells}


@pytest.mark.parametrize("run", ["bare, val", "outer, val", "not injected, val"])
def test_ranks_validate_every_cell_once(
    pbmc_dir: Path, seen: list[dict[str, list[str]]], run: str
) -> None:
    assert sorted(seen[0][run] + seen[1][run]) == sorted(ids(pbmc_dir, "val"))


@pytest.mark.parametrize(
    ("run", "split"),
    [
        ("predict", "test"),
        ("predict, bare", "test"),
        ("predict, large", "test"),
        ("predict, shuffled", "train"),
    ],
)
def test_ranks_predict_every_cell_once(
    pbmc_dir: Path, seen: list[dict[str, list[str]]], run: str, split: str
) -> None:
    assert sorted(seen[0][run] + seen[1][run]) == sorted(ids(pbmc_dir, split))


def test_ranks_go_on_under_fabric(seen: list[dict[str, list[str]]]) -> None:
    for rank in seen:
        assert len(rank["fabric, whole"]) == 4 * 256
        assert rank["fabric, resumed"] == rank["fabric, whole"]
    assert not {*seen[0]["fabric, whole"][:256]} & {*seen[1]["fabric, whole"][:256]}


def test_ranks_overfit_on_disjoint_cells(seen: list[dict[str, list[str]]]) -> None:
    assert len({*seen[0]["overfit"], *seen[1]["overfit"]}) == 2 * 64


@pytest.mark.parametrize("run", ["parts", "parts, bare", "parts, outer", "told to share"])
def test_ranks_that_hold_parts_of_one_model_get_the_same_cells(
    pbmc_dir: Path, seen: list[dict[str, list[str]]], run: str
) -> None:
    assert seen[0][run] == seen[1][run]
    assert len(set(seen[0][run])) == len(ids(pbmc_dir, "train")) // 32 * 32


@pytest.fixture(scope="module")
def on_nodes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What four ranks saw in each run: two nodes of two processes, as torchrun starts them."""
    out = tmp_path_factory.mktemp("nodes")
    with socket.socket() as free, pytest.MonkeyPatch.context() as patch, ExitStack() as running:
        free.bind(("127.0.0.1", 0))
        master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
        free.close()
        started = []
        for rank in range(4):
            own = {"RANK": rank, "LOCAL_RANK": rank % 2, "GROUP_RANK": rank // 2}
            of_all = {"WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "TORCHELASTIC_RUN_ID": "nodes"}
            for name, value in (own | of_all | master).items():
                patch.setenv(name, str(value))
            fork = forks.Fork("support.node_cells", str(out), cwd=TESTS, folder=out)
            started.append(running.enter_context(fork))
        for fork in started:
            assert fork.wait(240) == 0, fork.stderr
    return [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(4)]


@pytest.mark.parametrize(
    ("run", "preparing"),
    [("own disks", [True, False, True, False]), ("a shared disk", [True, False, False, False])],
)
def test_one_process_a_node_prepares_or_one_for_all_and_all_ranks_share_the_cells(
    on_nodes: list[dict[str, Any]], run: str, preparing: list[bool]
) -> None:
    ranks = [rank[run] for rank in on_nodes]
    assert [rank["has_prepared"] for rank in ranks] == preparing
    assert [len(rank["train"]) for rank in ranks] == 4 * [569 // 128 * 32]
    assert len({cell for rank in ranks for cell in rank["train"]}) == 569 // 128 * 128
    assert len({cell for rank in ranks for cell in rank["val"]}) == 65
