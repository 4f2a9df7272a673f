"""What workers of an executor prepare is what threads prepare, and no more is fetched for it."""

import json
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import pyarrow as pa
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scdiff_data import DownloadError, H5adFolder, Recipe, ScBaseCount, prepare
from scdiff_data.executors import attempts, crew
from scdiff_data.pipeline import fill_elsewhere
from scdiff_data.reading import GeneAxis
from scdiff_data.recipes import PrepareOptions
from scdiff_data.shuffle import parts
from scdiff_data.sources import Rows
from support import forks
from support.cases import ATLAS_SETTINGS, TESTS, digest_tree, pbmc_recipe
from support.h5ad import counts_of, write_source


def atlas_recipe(bucket: Path, **changes: Any) -> Recipe:
    return Recipe(source=ScBaseCount(url=str(bucket)), **(ATLAS_SETTINGS | changes))


class Troubled(Executor):
    """Threads, of which every third task fails, and every fifth is lost."""

    def __init__(self) -> None:
        self._pool, self.n_sent = ThreadPoolExecutor(3), 0

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        self.n_sent += 1
        if self.n_sent % 5 == 0:
            lost: Future[Any] = Future()
            lost.set_exception(RuntimeError("the worker is gone"))
            return lost
        if self.n_sent % 3 == 0:
            args = (fail_by_chance, *args[1:])
        return self._pool.submit(function, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait=wait, cancel_futures=cancel_futures)


def fail_by_chance(_: object, folder: Path) -> None:
    (folder / "cells").mkdir()
    raise OSError("a disk that was not there for a moment")


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "REST_SECONDS", 0.0)


def note_fetches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that workers fetch, as they do it."""
    fetched: list[str] = []
    real: Callable[..., Path] = fill_elsewhere.download

    def download(file_system: Any, remote: str, local: Path, **how: Any) -> Path:
        fetched.append(Path(remote).stem)
        return real(file_system, remote, local, **how)

    monkeypatch.setattr(fill_elsewhere, "download", download)
    return fetched


@pytest.fixture
def many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells are sorted in parts, however few they are."""
    monkeypatch.setattr(parts, "_PART_ROWS", 1)


@pytest.mark.usefixtures("many_parts")
def test_an_executor_whose_tasks_fail_now_and_then_makes_the_same_bytes(
    tmp_path: Path, atlas_bucket: Path, atlas_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Troubled() as executor:
        prepare(atlas_recipe(atlas_bucket), tmp_path, executor=executor)
    assert digest_tree(tmp_path) == digest_tree(atlas_dir)
    assert not (tmp_path / "making").exists()
    assert caplog.text.count("is tried again: OSError: a disk") >= 2
    assert caplog.text.count("was lost, and is sent again") >= 2


@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cell_count=st.integers(10, 230))
def test_exactly_cell_count_cells_are_drawn_and_nothing_else_is_fetched(
    tmp_path_factory: pytest.TempPathFactory, atlas_bucket: Path, cell_count: int
) -> None:
    recipe = atlas_recipe(atlas_bucket, cell_count=cell_count, split={"by": "cell", "test": 0})
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(4) as executor:
        fetched = note_fetches(patch)
        manifest = prepare(recipe, folder / "elsewhere", executor=executor)
    tried = json.loads((folder / "elsewhere/metadata/experiments.json").read_text())
    assert sum(manifest.n_cells.values()) == cell_count
    assert sorted(fetched) == sorted(entry["experiment_id"] for entry in tried)
    prepare(recipe, folder / "here")
    assert digest_tree(folder / "elsewhere") == digest_tree(folder / "here")


@pytest.mark.usefixtures("many_parts")
def test_a_directory_may_be_begun_in_threads_and_gone_on_with_elsewhere_and_the_reverse(
    tmp_path: Path, atlas_bucket: Path, atlas_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, real = atlas_recipe(atlas_bucket), crew.Done.move
    n_moved = 0

    def stop_at_times(done: crew.Done, made: Path, target: Path) -> None:
        nonlocal n_moved
        n_moved += 1
        if n_moved in (3, 8, 12, 15):
            raise KeyboardInterrupt
        real(done, made, target)

    monkeypatch.setattr(crew.Done, "move", stop_at_times)
    n_stops = 0
    with ThreadPoolExecutor(2) as executor:
        while True:
            try:
                prepare(recipe, tmp_path, executor=executor)
                break
            except KeyboardInterrupt:
                n_stops += 1
                with pytest.MonkeyPatch.context() as patch:  # a little way, in threads
                    patch.setattr("scdiff_data.pipeline.assemble.draw_cells", interrupt)
                    if n_stops == 1:
                        patch.setattr("scdiff_data.store.records.ExperimentRecord.write", interrupt)
                    with pytest.raises(KeyboardInterrupt):
                        prepare(recipe, tmp_path)
    assert n_stops >= 2
    assert digest_tree(tmp_path) == digest_tree(atlas_dir)


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


KILLED_BY_ITSELF = """
import os, signal, sys
from scdiff_data import Recipe, ScBaseCount, prepare
from scdiff_data.executors import crew
from support.cases import ATLAS_SETTINGS

real, calls = crew.Done.move, 0

def kill_at(*args):
    global calls
    calls += 1
    if calls == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)

crew.Done.move = kill_at
# Not guarded by `if __name__ == "__main__"`: nobody may run this again.
open(sys.argv[2] + ".runs", "a").write("1")
recipe = Recipe(source=ScBaseCount(url=sys.argv[1]), **ATLAS_SETTINGS)
prepare(recipe, sys.argv[2], executor="local")
"""


@pytest.mark.soak
def test_local_processes_go_on_after_a_kill_to_the_same_bytes(
    tmp_path: Path, atlas_bucket: Path, atlas_dir: Path
) -> None:
    data_dir = tmp_path / "data"
    killed = forks.run(KILLED_BY_ITSELF, str(atlas_bucket), str(data_dir), cwd=TESTS)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "data.runs").read_text() == "1"
    assert list(data_dir.glob("making/*")), "the kill left nothing behind"
    with ThreadPoolExecutor(2) as executor:
        prepare(atlas_recipe(atlas_bucket), data_dir, executor=executor)
    assert digest_tree(data_dir) == digest_tree(atlas_dir)


def test_a_file_of_many_experiments_comes_out_the_same(tmp_path: Path) -> None:
    source = write_source(tmp_path / "files.h5ad", sp.csr_matrix(counts_of()))
    cells = ad.read_h5ad(source)
    cells.obs["donor"] = [f"D{i % 6}" for i in range(60)]
    cells.write_h5ad(source)
    usual = {"min_genes": None, "min_counts": 40, "labels": (), "n_hvgs": None}
    usual |= {"split": {"by": "cell", "val": 0, "test": 0}}
    recipe = Recipe(source=H5adFolder(str(source), experiment_key="donor"), **usual)
    prepare(recipe, tmp_path / "here")
    with ThreadPoolExecutor(3) as executor:
        prepare(recipe, tmp_path / "elsewhere", executor=executor)
    assert digest_tree(tmp_path / "elsewhere") == digest_tree(tmp_path / "here")


def test_a_file_that_the_draw_comes_back_to_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_source(tmp_path / "files.h5ad", sp.csr_matrix(counts_of()))
    cells = ad.read_h5ad(source)
    cells.obs["donor"] = [f"D{i % 6}" for i in range(60)]
    cells.write_h5ad(source)
    known = H5adFolder.layout
    monkeypatch.setattr(
        H5adFolder, "layout", property(lambda own: replace(known.fget(own), in_place=False))
    )
    fetched, sent, real = note_fetches(monkeypatch), [], crew.Crew.send
    monkeypatch.setattr(crew.Crew, "send", lambda *given: (sent.append(given), real(*given))[1])
    usual = {"min_genes": None, "min_counts": 40, "labels": (), "n_hvgs": None, "cell_count": 30}
    usual |= {"split": {"by": "cell", "val": 0, "test": 0}}
    recipe = Recipe(source=H5adFolder(str(source), experiment_key="donor"), **usual)
    with ThreadPoolExecutor(3) as executor:
        prepare(recipe, tmp_path / "data", executor=executor)
    assert sum(isinstance(job, fill_elsewhere.FetchJob) for _, _, job, _ in sent) > 1
    assert len(fetched) == 1
    assert not (tmp_path / "data/downloads").exists()


def test_a_file_that_is_gone_is_left_out_and_the_server_being_down_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, atlas_bucket: Path
) -> None:
    recipe = atlas_recipe(atlas_bucket, max_failed_fraction=0.5)

    def fail(_: Any, remote: str, __: Path, **___: Any) -> Path:
        raise DownloadError(f"cannot fetch {remote}: gone", permanent=is_permanent)

    monkeypatch.setattr(fill_elsewhere, "download", fail)
    monkeypatch.setattr(crew, "_LONGEST_PAUSE", 0.0)
    with ThreadPoolExecutor(3) as executor:
        is_permanent = True
        with pytest.raises(DownloadError, match=r"experiments failed.*the last: .*: gone"):
            prepare(recipe, tmp_path / "a", executor=executor)
        is_permanent = False
        with pytest.raises(DownloadError, match=r"cannot fetch .*: gone"):
            prepare(recipe, tmp_path / "b", executor=executor)
    assert list((tmp_path / "a/cells").iterdir())
    assert not (tmp_path / "b/cells").exists()


def test_a_worker_without_the_sources_folder_leaves_no_experiment_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "_LONGEST_PAUSE", 0.0)
    real = fill_elsewhere.make_file

    def see_nothing(job: fill_elsewhere.FetchJob, folder: Path) -> Any:
        elsewhere = type(job.bucket)(f"{job.bucket.url}/not/mounted")
        return real(type(job)(job.file, elsewhere, job.kept), folder)

    monkeypatch.setattr(fill_elsewhere, "make_file", see_nothing)
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(FileNotFoundError, match=r"not/mounted, where the source's files.*mount"),
    ):
        prepare(pbmc_recipe(), tmp_path, executor=executor)
    assert not (tmp_path / "cells").exists()


def test_a_draw_that_goes_on_takes_as_many_steps_an_experiment_whatever_their_number(
    tmp_path: Path,
) -> None:
    n_looks = 0

    class Known:
        @property
        def n_cells(self) -> int:
            nonlocal n_looks
            n_looks += 1
            return 10

    class Maker:
        def find(self, *_: object, **__: object) -> Known:
            return Known()

        def most_cells(self, _: object) -> int:
            raise AssertionError("it is known")

    names = [f"E{i:04d}" for i in range(3_000)]
    columns = {"experiment_id": names, "path": names, "n_cells": [20] * 3_000}
    unknown = {name: pa.nulls(3_000, kind) for name, kind in (("size", "i8"), ("checksum", "str"))}
    order = Rows(pa.table(columns | unknown)).draw(0)
    axis = GeneAxis(("G",), ("G",))
    draw = fill_elsewhere.Draw(order, 20_000, axis, axis)
    given: Any = (Maker(), SimpleNamespace(n_threads=1, n_workers=2), tmp_path, None, draw)
    filling = fill_elsewhere.FillElsewhere(*given, PrepareOptions())
    assert [row for row, _ in filling.run()] == list(order[:2_000])
    assert n_looks <= 4 * 2_000
