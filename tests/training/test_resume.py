"""A run goes on from a checkpoint with exactly the cells that it had not seen, on any ranks."""

import json
import signal
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch

from scdiff_data import HVGDataset
from scdiff_data.sampling.sampler import CellSampler
from support import forks
from support.cases import TESTS
from support.resume_run import WINDOWS, Witness, run, seen_by_ranks

pytestmark = [
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]
N_STEPS, N_EPOCHS = 17, 3
"""Full batches of 32 of the training cells on one rank; 8 on two."""


def run_elsewhere(*runs: dict[str, Any]) -> CompletedProcess[str]:
    """One after another in the same processes, as many as there are devices."""
    return forks.run("support.resume_run", *map(json.dumps, runs), cwd=TESTS)


def cells_by_epoch(steps: list[tuple[int, list[str]]]) -> dict[int, list[str]]:
    epochs: dict[int, list[str]] = {}
    for epoch, cells in steps:
        epochs.setdefault(epoch, []).extend(cells)
    return epochs


@pytest.fixture(scope="module")
def order(pbmc_dir: Path) -> dict[int, list[str]]:
    """Every epoch's cells in the global order, the tail included."""
    ids = HVGDataset(pbmc_dir, split="train")[:].metadata["cell_id"].tolist()
    sampler, epochs = CellSampler(len(ids), 1, seed=42, **WINDOWS), {}
    for epoch in range(N_EPOCHS):
        sampler.set_epoch(epoch)
        epochs[epoch] = [ids[row] for rows in sampler for row in rows]
    return epochs


@pytest.fixture(scope="module")
def whole(pbmc_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Witness, Path]:
    """An undisturbed run on one rank, with a checkpoint of every step and validation."""
    out = tmp_path_factory.mktemp("whole")
    return run(str(pbmc_dir), str(out), max_epochs=N_EPOCHS), out


def test_the_undisturbed_run_follows_the_global_order(
    whole: tuple[Witness, Path], order: dict[int, list[str]]
) -> None:
    found = cells_by_epoch(whole[0].seen)
    assert found == {epoch: cells[: 32 * N_STEPS] for epoch, cells in order.items()}
    assert whole[0].validated == [0, 1, 2]


PLACES = {
    "mid-epoch": "step=5.ckpt",
    "on-the-epoch's-last-batch": f"step={N_STEPS}.ckpt",
    "after-validation": "validated-epoch=0.ckpt",
    "in-the-second-epoch": f"step={N_STEPS + 4}.ckpt",
    "at-the-second-epoch's-end": "validated-epoch=1.ckpt",
}


def steps_before(place: str) -> int:
    if place.startswith("validated"):
        return N_STEPS * (1 + int(place.removesuffix(".ckpt").split("=")[1]))
    return int(place.removesuffix(".ckpt").split("=")[1])


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
@pytest.mark.parametrize("num_workers", [0, 2])
def test_it_goes_on_with_the_cells_not_seen_to_the_same_weights(
    pbmc_dir: Path, tmp_path: Path, whole: tuple[Witness, Path], place: str, num_workers: int
) -> None:
    model, out = whole
    resumed = run(str(pbmc_dir), str(tmp_path), ckpt_path=str(out / place), num_workers=num_workers)
    assert resumed.seen == model.seen[steps_before(place) :]
    assert torch.equal(resumed.layer.weight, model.layer.weight)
    n_validated = steps_before(place) // N_STEPS if place.startswith("validated") else 0
    n_validated = n_validated or (steps_before(place) - 1) // N_STEPS
    assert resumed.validated == model.validated[n_validated:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_killed_in_mid_epoch_it_goes_on_from_its_last_checkpoint(
    pbmc_dir: Path, tmp_path: Path, whole: tuple[Witness, Path], num_workers: int
) -> None:
    arguments = {"save_every": 4, "kill_at": N_STEPS + 6, "num_workers": num_workers}
    killed = run_elsewhere({"data_dir": str(pbmc_dir), "out": str(tmp_path), **arguments})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = max(tmp_path.glob("step=*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    assert last.name == "step=20.ckpt"
    del arguments["kill_at"]
    resumed = run(str(pbmc_dir), str(tmp_path / "on"), ckpt_path=str(last), **arguments)
    assert resumed.seen == whole[0].seen[20:]
    assert torch.equal(resumed.layer.weight, whole[0].layer.weight)


@pytest.mark.parametrize(
    ("told", "devices", "accumulate"),
    [(signal.SIGTERM, 1, 1), (signal.SIGINT, 1, 2), (signal.SIGTERM, 2, 1)],
    ids=["SIGTERM", "Ctrl-C, gradients of two batches", "SIGTERM to one of two ranks"],
)
def test_told_to_stop_it_keeps_the_step_at_hand_and_exits_as_not_finished(
    pbmc_dir: Path, tmp_path: Path, told: int, devices: int, accumulate: int
) -> None:
    settings = {"data_dir": str(pbmc_dir), "devices": devices, "accumulate": accumulate}
    settings |= {"save_every": 100, "max_epochs": 1}
    whole, on = tmp_path / "whole", tmp_path / "on"
    killed = settings | {"kill_at": 3, "kill_with": told, "stops": True, "out": str(tmp_path)}
    stopped = run_elsewhere(killed)
    assert stopped.returncode == 128 + told, stopped.stderr
    assert f"go on with ckpt_path={tmp_path / 'stopped.ckpt'}" in stopped.stderr
    resumed = settings | {"ckpt_path": str(tmp_path / "stopped.ckpt"), "out": str(on)}
    finished = run_elsewhere(settings | {"out": str(whole)}, resumed)
    assert finished.returncode == 0, finished.stderr
    n_seen = 4 * accumulate
    assert seen_by_ranks(on, devices) == seen_by_ranks(whole, devices)[n_seen:]


def test_a_chain_of_resumes_is_one_run(
    pbmc_dir: Path, tmp_path: Path, whole: tuple[Witness, Path]
) -> None:
    model, out = whole
    second = run(str(pbmc_dir), str(tmp_path), ckpt_path=str(out / "step=5.ckpt"), max_steps=25)
    third = run(str(pbmc_dir), str(tmp_path / "3"), ckpt_path=str(tmp_path / "step=25.ckpt"))
    assert second.seen + third.seen == model.seen[5:]
    assert torch.equal(third.layer.weight, model.layer.weight)


def test_accumulated_gradients_resume_between_optimizer_steps(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    undisturbed = run(str(pbmc_dir), str(tmp_path / "whole"), accumulate=2, max_epochs=2)
    resumed = run(
        str(pbmc_dir),
        str(tmp_path / "on"),
        accumulate=2,
        max_epochs=2,
        ckpt_path=str(tmp_path / "whole" / "step=3.ckpt"),
    )
    assert resumed.seen == undisturbed.seen[6:]
    assert torch.equal(resumed.layer.weight, undisturbed.layer.weight)


@pytest.mark.parametrize(
    "changes", [{"shuffle": "global"}, {"balance": "cell_type"}], ids=["global", "balanced"]
)
def test_other_orders_resume_too(pbmc_dir: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    undisturbed = run(str(pbmc_dir), str(tmp_path / "whole"), max_epochs=2, **changes)
    checkpoint = str(tmp_path / "whole" / "step=7.ckpt")
    resumed = run(
        str(pbmc_dir), str(tmp_path / "on"), max_epochs=2, ckpt_path=checkpoint, **changes
    )
    assert resumed.seen == undisturbed.seen[7:]


def check_the_rest(
    steps: list[tuple[int, list[str]]],
    order: dict[int, list[str]],
    *,
    epoch: int,
    position: int,
    step_size: int,
) -> None:
    """All that is left of the epoch, in the global order, and the epochs after it."""
    found = cells_by_epoch(steps)
    for number in range(epoch, N_EPOCHS):
        start = position if number == epoch else 0
        left = (len(order[number]) - start) // step_size * step_size
        assert found.pop(number, []) == order[number][start : start + left], number
    assert not found


ONE_TO_TWO = ["step=5.ckpt", f"step={N_STEPS}.ckpt"]
"""Of one rank's checkpoints, those that two ranks go on from."""


@pytest.fixture(scope="module")
def two_ranks(
    pbmc_dir: Path, whole: tuple[Witness, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An undisturbed run on two ranks, with a checkpoint of every step and validation.

    Folders in its own hold what became of one rank's checkpoints on two ranks.
    """
    out = tmp_path_factory.mktemp("two")
    both = {"data_dir": str(pbmc_dir), "devices": 2}
    goes_on = [
        {"out": str(out / f"from-{place}"), "ckpt_path": str(whole[1] / place), "save_every": 100}
        for place in ONE_TO_TWO
    ]
    finished = run_elsewhere(*(both | one for one in ({"out": str(out)}, *goes_on)))
    assert finished.returncode == 0, finished.stderr
    return out


@pytest.mark.parametrize("place", ONE_TO_TWO)
def test_one_rank_goes_on_as_two(two_ranks: Path, order: dict[int, list[str]], place: str) -> None:
    out, position = two_ranks / f"from-{place}", 32 * steps_before(place)
    check_the_rest(seen_by_ranks(out, 2), order, epoch=0, position=position, step_size=64)
    validated = json.loads((out / "rank0.json").read_text())["validated"]
    assert validated == list(range(N_EPOCHS))


@pytest.mark.parametrize(
    ("place", "epoch", "position"),
    [
        ("step=3.ckpt", 0, 192),
        ("step=8.ckpt", 0, 512),
        ("step=11.ckpt", 1, 192),
        ("validated-epoch=0.ckpt", 1, 0),
    ],
)
def test_two_ranks_go_on_as_one(
    pbmc_dir: Path,
    tmp_path: Path,
    two_ranks: Path,
    order: dict[int, list[str]],
    place: str,
    epoch: int,
    position: int,
) -> None:
    resumed = run(str(pbmc_dir), str(tmp_path), ckpt_path=str(two_ranks / place))
    check_the_rest(resumed.seen, order, epoch=epoch, position=position, step_size=32)
    assert resumed.validated == list(range(epoch, N_EPOCHS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run_size": 9}, r"run_size: 8 there, 9 here"),
        ({"shuffle": "global"}, r"window_size: 128 there, 0 here, run_size: 8 there, 0 here"),
        ({"balance": "cell_type"}, r"classes: 0 there, \d+ here"),
    ],
)
def test_another_order_of_cells_in_mid_epoch_is_refused_and_after_an_epoch_is_not(
    pbmc_dir: Path,
    tmp_path: Path,
    whole: tuple[Witness, Path],
    change: dict[str, Any],
    message: str,
) -> None:
    _, out = whole
    with pytest.raises(ValueError, match=rf"middle of an epoch.*{message}.*an epoch's end"):
        run(str(pbmc_dir), str(tmp_path), ckpt_path=str(out / "step=5.ckpt"), **change)
    checkpoint = str(out / "validated-epoch=1.ckpt")
    resumed = run(str(pbmc_dir), str(tmp_path / "on"), ckpt_path=checkpoint, **change)
    assert [epoch for epoch, _ in resumed.seen] == [2] * N_STEPS


def test_checkpoints_of_before_there_were_windows_go_on_if_the_order_is_the_same(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    small = {"window_size": 10_000, "max_epochs": 1}  # so that both shuffles are one order
    undisturbed = run(str(pbmc_dir), str(tmp_path), **small)
    checkpoint = torch.load(tmp_path / "step=5.ckpt", weights_only=True)
    order = checkpoint["ScRNADataModule"]["progress"]["order"]
    assert order.pop("window_size") == order.pop("run_size") == 0

    def go_on(block_size: int, **changes: Any) -> Witness:
        order["block_size"] = block_size
        torch.save(checkpoint, tmp_path / "old.ckpt")
        path = str(tmp_path / "old.ckpt")
        return run(str(pbmc_dir), str(tmp_path / "on"), ckpt_path=path, **(small | changes))

    for changes in ({}, {"shuffle": "global"}):
        assert go_on(1, **changes).seen == undisturbed.seen[5:]
    with pytest.raises(ValueError, match=r"window_size: 0 there, 128 here.*with shuffle=global"):
        go_on(1, window_size=128)
    with pytest.raises(ValueError, match=r"block_size: 16 there, 1 here.*no block_size any more"):
        go_on(16)


def test_a_lightning_with_other_counters_is_named_before_training(
    pbmc_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

    monkeypatch.delattr(_TrainingEpochLoop, "_should_check_val_fx")
    with pytest.raises(
        RuntimeError, match=r"this is 2\.6\.6, which has no trainer.*should_check_val"
    ):
        run(str(pbmc_dir), str(tmp_path), max_epochs=1)
