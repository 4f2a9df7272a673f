"""Slow tests of faults and scale: `make soak`."""

import gc
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from scdiff_data import Recipe, ScBaseCount, create_hvg_dataloader, prepare
from support import forks
from support.cases import ATLAS_SETTINGS, TESTS, digest_tree
from support.kills import KILL_SCRIPT

pytestmark = pytest.mark.soak


def test_thirty_kills_at_random_times_leave_the_same_bytes(
    tmp_path: Path, atlas_bucket: Path, atlas_dir: Path
) -> None:
    rng, kills, data_dir = random.Random(0), 0, tmp_path / "killed"
    script = KILL_SCRIPT.format(module="fetching.downloads", function="_verify", call=10**9)
    while kills < 30:
        arguments = (str(atlas_bucket), str(data_dir))
        with forks.Fork(script, *arguments, cwd=TESTS, folder=tmp_path) as process:
            time.sleep(rng.uniform(0, 1))  # what a whole run takes
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            assert digest_tree(data_dir) == digest_tree(atlas_dir)
            shutil.rmtree(data_dir)
        else:
            assert process.returncode == -signal.SIGKILL, process.stderr
    prepare(Recipe(source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS), data_dir)
    assert digest_tree(data_dir) == digest_tree(atlas_dir)


def test_ten_epochs_take_no_more_memory_than_one(pbmc_dir: Path) -> None:
    loader = create_hvg_dataloader(pbmc_dir, 32)

    def peak_after_an_epoch(epoch: int) -> int:
        loader.sampler.set_epoch(epoch)
        for _ in loader:
            pass
        gc.collect()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    first = peak_after_an_epoch(0)
    for epoch in range(1, 10):
        last = peak_after_an_epoch(epoch)
    assert last - first < 5_000  # kB
