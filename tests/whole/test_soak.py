"""Slow tests of faults and scale: `make soak`."""

import gc
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scdiff_data import Recipe, ScBaseCount, create_hvg_dataloader, prepare
from support.cases import ATLAS_SETTINGS, TESTS, digest_tree
from support.kills import KILL_SCRIPT

pytestmark = pytest.mark.soak


def test_thirty_kills_at_random_times_leave_the_same_bytes(
    tmp_path: Path, atlas_bucket: Path
) -> None:
    rng = random.Random(0)
    script = KILL_SCRIPT.format(module="sources.downloads", function="_verify", call=10**9)
    command = [sys.executable, "-c", script, str(atlas_bucket), str(tmp_path / "killed")]
    for _ in range(30):
        process = subprocess.Popen(command, cwd=TESTS)
        while process.poll() is None and not (tmp_path / "killed" / ".lock").exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(3, 9))  # most of it imports the package
        process.kill()
        assert process.wait() in (0, -signal.SIGKILL)
    recipe = Recipe(source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS)
    prepare(recipe, tmp_path / "killed")
    prepare(recipe, tmp_path / "undisturbed")
    assert digest_tree(tmp_path / "killed") == digest_tree(tmp_path / "undisturbed")


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
