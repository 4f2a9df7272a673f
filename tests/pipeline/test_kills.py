"""Killed at any moment, the same call goes on to the same bytes."""

import signal
import time
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from scdiff_data import Recipe, ScBaseCount, prepare
from support import forks
from support.cases import ATLAS_SETTINGS, TESTS, digest_tree
from support.kills import KILL_SCRIPT


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [
        pytest.param("fetching.downloads", "_verify", 3, id="mid-download"),
        pytest.param("archive.writing", "transpose", 2, id="mid-archive"),
        pytest.param("pipeline.cell_table", "read_label", 2, id="mid-table"),
        pytest.param("shuffle.sorting", "sort_rows", 3, id="mid-sort"),
        pytest.param("shards.contents", "write_dense", 3, id="mid-shards"),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    tmp_path: Path,
    atlas_bucket: Path,
    atlas_dir: Path,
    module: str,
    function: str,
    call: int,
) -> None:
    script = KILL_SCRIPT.format(module=module, function=function, call=call)
    killed = forks.run(script, str(atlas_bucket), str(tmp_path / "killed"), cwd=TESTS)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "config.json").exists()
    left_behind = digest_tree(tmp_path / "killed")
    prepare(
        Recipe(source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS), tmp_path / "killed"
    )
    assert digest_tree(tmp_path / "killed") == digest_tree(atlas_dir)
    assert left_behind, "the kill came before anything was written"


def test_runs_killed_at_any_time_go_on_to_the_same_bytes(
    tmp_path: Path, atlas_bucket: Path, atlas_dir: Path
) -> None:
    script = KILL_SCRIPT.format(module="fetching.downloads", function="_verify", call=10**9)
    arguments = (str(atlas_bucket), str(tmp_path / "killed"))
    wait, kills = 0.2, 0
    while True:
        with forks.Fork(script, *arguments, cwd=TESTS, folder=tmp_path) as process:
            started = tmp_path / "killed" / ".lock"
            while process.returncode is None and not started.exists():
                time.sleep(0.01)  # count from the first file
            try:
                process.wait(wait)
                break
            except TimeoutExpired:
                kills, wait = kills + 1, wait * 3
    assert process.returncode == 0
    assert kills > 0
    assert digest_tree(tmp_path / "killed") == digest_tree(atlas_dir)
