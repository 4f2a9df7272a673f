"""Slow tests of faults and scale: `make soak`."""

import gc
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from test_prepare import ATLAS_SETTINGS, KILL_SCRIPT, digest_tree

from scdiff_data import Recipe, ScBaseCount, create_hvg_dataloader, prepare

pytestmark = pytest.mark.soak


def test_thirty_kills_at_random_times_leave_the_same_bytes(
    tmp_path: Path, atlas_bucket: Path
) -> None:
    rng = random.Random(0)
    script = KILL_SCRIPT.format(module="download", function="_verify", call=10**9)
    command = [sys.executable, "-c", script, str(atlas_bucket), str(tmp_path / "killed")]
    for _ in range(30):
        process = subprocess.Popen(command, cwd=Path(__file__).parent)
        while process.poll() is None and not (tmp_path / "killed" / ".lock").exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(3, 9))  # most of it imports the package
        process.kill()
        process.wait()
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


ARCHIVE_SCRIPT = """
import resource, sys
from pathlib import Path
from scdiff_data.archive import QualityFilter, read_gene_axis, write_archive
import anndata.io, scipy.sparse  # what is imported late counts as the interpreter's own

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(l.split()[1]) for l in lines if l.startswith(("RssAnon",))) // 1024

source, target, max_memory = sys.argv[1:]
axis = read_gene_axis(Path(source))
import threading, time
peak, done = anonymous(), threading.Event()
before = peak
def watch():
    global peak
    while not done.wait(0.005):
        peak = max(peak, anonymous())
watcher = threading.Thread(target=watch); watcher.start()
write_archive(Path(source), Path(target), experiment_id="x", axis=axis, quality=QualityFilter(),
              max_cells=None, seed=0, max_memory=int(max_memory))
done.set(); watcher.join()
print(peak - before)
"""


def test_a_file_ten_times_the_allowance_converts_within_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrix = sp.random(20_000, 5_000, 0.2, "csc", np.float32, random_state=rng)  # 20 M values
    matrix.data = np.ceil(matrix.data * 9).astype(np.float32)
    obs = pd.DataFrame(index=[f"c{i}" for i in range(20_000)])
    cells = ad.AnnData(matrix, obs, pd.DataFrame(index=[f"g{i}" for i in range(5_000)]))
    cells.write_h5ad(tmp_path / "source.h5ad")
    allowance = 15 << 20
    assert (tmp_path / "source.h5ad").stat().st_size >= 10 * allowance
    script = [sys.executable, "-c", ARCHIVE_SCRIPT, str(tmp_path / "source.h5ad")]
    target = tmp_path / "target.h5ad"
    finished = subprocess.run(
        [*script, str(target), str(allowance)], capture_output=True, text=True, check=True
    )
    used_mb = int(finished.stdout)
    compiling_mb = 60  # the compiler's own, once
    assert used_mb < (allowance >> 20) + compiling_mb
    assert (matrix.tocsr() != ad.read_h5ad(target).X).nnz == 0
