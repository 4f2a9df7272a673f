"""Eight processes that train one model: each cell once an epoch, and on exactly from mid-epoch."""

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from scdiff_data import HVGDataset
from support import forks
from support.cases import TESTS
from support.resume_run import seen_by_ranks
from support.tally import tally_of

pytestmark = pytest.mark.soak

N_RANKS, N_EPOCHS, BATCH_SIZE = 8, 2, 8


def weights_of(out: Path) -> list[list[float]]:
    """What each rank's layer had at the end."""
    ranks = [json.loads((out / f"rank{rank}.json").read_text()) for rank in range(N_RANKS)]
    return [rank["weights"] for rank in ranks]


def test_eight_ranks_share_every_epoch_and_go_on_from_its_middle(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    cells = set(HVGDataset(pbmc_dir, split="train").read_ids().tolist())
    step_size = N_RANKS * BATCH_SIZE
    n_steps = len(cells) // step_size
    places = (3, n_steps + 5)  # in the first epoch, and in the second
    whole = {
        "data_dir": str(pbmc_dir),
        "out": str(tmp_path / "whole"),
        "devices": N_RANKS,
        "max_epochs": N_EPOCHS,
        "batch_size": BATCH_SIZE,
    }
    resumed = [
        whole | {"out": str(tmp_path / f"{n}"), "ckpt_path": f"{whole['out']}/step={n}.ckpt"}
        for n in places
    ]
    with tally_of("eight ranks of one model") as tally:
        for runs in ([whole], resumed):  # those that go on are other processes
            finished = forks.run("support.resume_run", *map(json.dumps, runs), cwd=TESTS)
            assert finished.returncode == 0, finished.stderr
        steps = seen_by_ranks(Path(whole["out"]), N_RANKS)  # equally many on all ranks, or it fails
        assert [epoch for epoch, _ in steps] == [0] * n_steps + [1] * n_steps
        for epoch in range(N_EPOCHS):
            shown = list(chain.from_iterable(seen for at, seen in steps if at == epoch))
            assert len(set(shown)) == len(shown) == n_steps * step_size  # all but the tail, once
            assert set(shown) <= cells
            tally.add("right")
        first, *others = weights_of(Path(whole["out"]))
        assert others == [first] * (N_RANKS - 1)  # to the last bit
        for n, run in zip(places, resumed, strict=True):
            assert seen_by_ranks(Path(run["out"]), N_RANKS) == steps[n:]
            last, *others = weights_of(Path(run["out"]))
            assert others == [last] * (N_RANKS - 1)
            # DDP lays its buckets anew after a run's first step, and sums in another order then.
            np.testing.assert_allclose(last, first, rtol=1e-5)
            tally.add("right")
