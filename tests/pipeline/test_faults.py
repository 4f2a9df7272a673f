"""What a night may bring: full disks, read-only disks, Ctrl-C, company, hostile catalogs."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp

from scdiff_data import ManifestError, Recipe, ScBaseCount, plan, prepare
from scdiff_data.fetching import pool
from scdiff_data.pipeline import make_archives
from scdiff_data.store.manifest import Manifest
from support import forks
from support.cases import ATLAS_SETTINGS, TESTS, GcsServer, digest_tree, pbmc_recipe
from support.fault_proxy import FaultProxy
from support.h5ad import GENES, archive, counts_of, write_source
from support.reading import read_shards


def atlas_recipe(bucket: Path | str, **changes: Any) -> Recipe:
    return Recipe(source=ScBaseCount(url=str(bucket)), **(ATLAS_SETTINGS | changes))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 MB of its own; only root can mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no tmpfs can be mounted: {error}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def before(
    monkeypatch: pytest.MonkeyPatch, place: str, call: int, action: Callable[[], object]
) -> Iterator[None]:
    """Do something just before the `call`th call of a function of the package."""
    name, function = place.rsplit(".", 1)
    module = import_module(f"scdiff_data.{name}")
    real, calls = getattr(module, function), iter(range(1, 1 << 30))

    def act(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == call:
            action()
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, function, act)
        yield


@pytest.mark.parametrize(
    ("place", "call"),
    [
        pytest.param("fetching.pool.download", 1, id="downloads"),
        pytest.param("pipeline.make_archives.write_archives", 2, id="archives"),
        pytest.param("pipeline.assemble.write_json", 1, id="metadata"),
        pytest.param("pipeline.make_archives.write_statistics", 2, id="statistics"),
        pytest.param("pipeline.assemble.plot_hvgs", 1, id="picture"),
        pytest.param("pipeline.assemble.write_shards", 1, id="shards"),
    ],
)
def test_a_full_disk_says_so_and_the_same_call_goes_on(
    small_disk: Path,
    atlas_bucket: Path,
    atlas_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    call: int,
) -> None:
    ballast = small_disk / "ballast"

    def fill() -> None:
        with suppress(OSError), ballast.open("wb", 0) as file:
            while True:
                file.write(bytes(4096))

    recipe = atlas_recipe(atlas_bucket)
    with (
        before(monkeypatch, place, call, fill),
        pytest.raises(OSError, match=r"disk of .* is full: free some.*goes on from here"),
    ):
        prepare(recipe, small_disk / "data")
    assert ballast.exists()
    assert not (small_disk / "data" / "config.json").exists()
    ballast.unlink()
    prepare(recipe, small_disk / "data")
    assert digest_tree(small_disk / "data") == digest_tree(atlas_dir)


def test_a_disk_that_is_too_small_is_known_before_anything_is_fetched(
    small_disk: Path, atlas_bucket: Path
) -> None:
    (small_disk / "ballast").write_bytes(bytes(63 << 20))
    with pytest.raises(OSError, match=r"free, the run needs about .*larger disk"):
        prepare(atlas_recipe(atlas_bucket), small_disk / "data")
    assert not list((small_disk / "data").glob("[cdp]*/*"))


def test_a_finished_directory_may_be_read_only(small_disk: Path, pbmc_dir: Path) -> None:
    shutil.copytree(pbmc_dir, small_disk / "data")
    made = Manifest.read(small_disk / "data")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    found = prepare(pbmc_recipe(), small_disk / "data")
    assert found == made
    assert len(read_shards(small_disk / "data").cell_ids) == 700
    for recipe, folder in ((pbmc_recipe(n_hvgs=32), "data"), (pbmc_recipe(), "new")):
        with pytest.raises(OSError, match=r"cannot write in .*data_dir to a folder that can be"):
            prepare(recipe, small_disk / folder)
    assert prepare(pbmc_recipe(), small_disk / "data") == made


def test_a_file_in_place_of_the_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(OSError, match=r"cannot write in .*data_dir to a folder that can be"):
        prepare(pbmc_recipe(), tmp_path / "data")
    assert (tmp_path / "data").read_text() == "not a folder"


def test_links_in_the_way_are_not_written_through(tmp_path: Path, atlas_bucket: Path) -> None:
    victims = tmp_path / "victims"
    victims.mkdir()
    ids = [path.stem for path in sorted(atlas_bucket.rglob("*.h5ad"))]
    data = tmp_path / "data"
    plan(atlas_recipe(atlas_bucket), data)  # the folder is ours
    for folder, suffix in (("cells", ".h5ad"), ("cells", ".h5ad.tmp"), ("cells", ".json")):
        (data / folder).mkdir(parents=True, exist_ok=True)
        for name in ids:
            (victims / (name + suffix)).write_text("precious")
            (data / folder / (name + suffix)).symlink_to(victims / (name + suffix))
    manifest = prepare(atlas_recipe(atlas_bucket), data)
    assert {path.read_text() for path in victims.iterdir()} == {"precious"}
    archives = [e.path for e in manifest.files if e.path.startswith("cells/")]
    assert len(archives) == 4
    assert not any((data / path).is_symlink() for path in archives)


def test_links_at_all_temporary_names_are_not_written_through(tmp_path: Path) -> None:
    data, victim = tmp_path / "data", tmp_path / "victim"
    victim.write_text("precious")
    made = prepare(pbmc_recipe(), tmp_path / "other")
    names = [entry.path for entry in made.files]
    names += [path.replace(".h5ad", ".json") for path in names if path.endswith(".h5ad")]
    plan(pbmc_recipe(), data)  # the folder is ours
    for name in dict.fromkeys([*names, "config.json", "hvg_analysis.png"]):
        for end in (".tmp", ".tmp.tmp", ".tmp.shorter"):
            (data / name).parent.mkdir(exist_ok=True)
            (data / (name + end)).symlink_to(victim)
    for folder, name in (("sorting", "00000"), ("sorting", "done.json"), ("ordering", "000.arrow")):
        (data / folder).mkdir(exist_ok=True)
        (data / folder / name).symlink_to(victim)
    assert prepare(pbmc_recipe(), data).files == made.files
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["sorting", "ordering", ".lock"])
def test_a_link_in_place_of_a_folder_or_the_lock_is_refused(tmp_path: Path, name: str) -> None:
    plan(pbmc_recipe(), tmp_path / "data")
    (tmp_path / "data/.lock").unlink(missing_ok=True)
    victim = tmp_path / "victim"
    if name == ".lock":
        victim.write_text("precious")
    else:
        victim.mkdir()
    (tmp_path / "data" / name).symlink_to(victim)
    with pytest.raises(OSError, match=r"cannot write in .*data"):
        prepare(pbmc_recipe(), tmp_path / "data")
    if name == ".lock":
        assert victim.read_text() == "precious"
    else:
        assert not list(victim.iterdir())


def test_a_merged_archive_is_not_written_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    genes = [
        *GENES[:-1],
        f"{GENES[0]}.2",
    ]  # one twice, so that the archive is written again, shorter
    source = write_source(tmp_path / "s.h5ad", sp.csr_matrix(counts_of()), genes)
    (tmp_path / "a.h5ad.tmp.shorter").symlink_to(victim)
    assert archive(source, tmp_path / "a.h5ad").n_genes_duplicated == 1
    assert victim.read_text() == "precious"
    assert not (tmp_path / "a.h5ad").is_symlink()


def test_ids_that_were_put_into_the_snapshot_write_nothing_outside(
    tmp_path: Path, atlas_bucket: Path
) -> None:
    data = tmp_path / "data"
    recipe = atlas_recipe(atlas_bucket)
    plan(recipe, data)
    path = data / "metadata/catalog.parquet"
    table = pq.read_table(path)
    evil = pa.array([f"../../evil{i}" for i in range(len(table))])
    place = table.column_names.index("experiment_id")
    pq.write_table(table.set_column(place, "experiment_id", evil), path)
    for step in (prepare, plan):
        with pytest.raises(ManifestError, match=r"catalog\.parquet is damaged.*refresh_catalog"):
            step(recipe, data)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
    assert prepare(recipe, data, refresh_catalog=True).n_cells


def test_ids_that_try_to_leave_the_directory_do_not(
    tmp_path: Path, atlas_bucket: Path, atlas_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = tmp_path / "bucket"
    subprocess.run(["cp", "-r", atlas_bucket, bucket], check=True)
    (path,) = bucket.rglob("sample_metadata.parquet")
    table = pq.read_table(path)
    stray = [f"{'../' * 9}tmp/evil", "/tmp/evil", "..", "a/b", "a\x00b", ".lock", ""]
    rows = table.slice(0, 1).take(pa.array([0] * len(stray)))
    column = table.column_names.index("srx_accession")
    rows = rows.set_column(column, "srx_accession", pa.array(stray))
    pq.write_table(pa.concat_tables([table, rows]), path)
    prepare(atlas_recipe(bucket), tmp_path / "data")
    assert "left out 7 experiments" in caplog.text
    assert {path.name for path in tmp_path.iterdir()} == {"bucket", "data"}
    assert digest_tree(tmp_path / "data" / "cells") == digest_tree(atlas_dir / "cells")


def test_few_source_files_are_on_disk_at_once(
    tmp_path: Path, atlas_bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads, n_threads = tmp_path / "downloads", 2
    seen: list[int] = []

    def spy(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            finally:
                seen.append(len({path.name.split(".")[0] for path in downloads.iterdir()}))

        return call

    # A file appears when a download starts, and goes when its archive is made.
    for module, name in ((pool, "download"), (make_archives, "write_archives")):
        monkeypatch.setattr(module, name, spy(getattr(module, name)))
    prepare(atlas_recipe(atlas_bucket), tmp_path, n_threads=n_threads)
    assert len(seen) == 12  # six files
    assert 2 <= max(seen) <= n_threads + 2
    assert not downloads.exists()


SCRIPT = """
import logging, os, signal, sys, time
from pathlib import Path
import scdiff_data.{module} as module
from scdiff_data import Recipe, ScBaseCount, plan, prepare
from support import forks
from support.cases import ATLAS_SETTINGS

logging.basicConfig(level=logging.WARNING)
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells' background jobs ignore it
url, data_dir, endpoint = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let what they put aside ignore it
real, calls = module.{function}, 0

def act(*args, **kwargs):
    global calls
    calls += 1
    {action}
    return real(*args, **kwargs)

module.{function} = act
source = ScBaseCount(url=url, storage_options={{"endpoint_url": endpoint}} if endpoint else {{}})
try:
    prepare(Recipe(source=source, **ATLAS_SETTINGS), data_dir, n_threads=2)
finally:
    print("calls", calls)
"""


def write_script(place: str, action: str) -> str:
    module, function = place.rsplit(".", 1)
    return SCRIPT.format(module=module, function=function, action=action)


def start(url: str, data_dir: Path, place: str, action: str, endpoint: str = "") -> Any:
    command = [sys.executable, "-c", write_script(place, action), url, str(data_dir), endpoint]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=TESTS, stdout=pipe, stderr=pipe, text=True)


def test_of_two_processes_the_second_waits_and_finds_the_work_done(
    tmp_path: Path, atlas_bucket: Path, atlas_dir: Path
) -> None:
    data_dir, go = tmp_path / "data", tmp_path / "go"
    wait = f"while not Path({str(go)!r}).exists(): time.sleep(0.01)"
    script = write_script("pipeline.make_archives.write_archives", wait)

    def begin() -> forks.Fork:
        return forks.Fork(script, str(atlas_bucket), str(data_dir), "", cwd=TESTS, folder=tmp_path)

    with begin() as first:
        while not list(data_dir.glob("downloads/*")):
            assert first.returncode is None, first.stderr
        with begin() as second:
            while f"another process prepares {data_dir}: waiting for it" not in second.stderr:
                assert second.returncode is None, second.stderr
            go.touch()
            assert [process.wait(120) for process in (first, second)] == [0, 0], second.stderr
    assert [process.stdout for process in (first, second)] == ["calls 6\n", "calls 0\n"]
    assert digest_tree(data_dir) == digest_tree(atlas_dir)


@pytest.mark.parametrize(
    ("place", "call"),
    [
        pytest.param("archive.writing.transpose", 2, id="archives"),
        pytest.param("shards.contents.write_dense", 2, id="shards"),
    ],
)
def test_ctrl_c_ends_the_run_and_the_same_call_goes_on(
    tmp_path: Path, atlas_bucket: Path, atlas_dir: Path, place: str, call: int
) -> None:
    press = f"if calls == {call}: os.kill(os.getpid(), signal.SIGINT)"
    process = start(str(atlas_bucket), tmp_path / "stopped", place, press)
    _, said = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGINT, said
    assert "stopped: the same command goes on from here" in said
    assert not (tmp_path / "stopped" / "config.json").exists()
    prepare(atlas_recipe(atlas_bucket), tmp_path / "stopped")
    assert digest_tree(tmp_path / "stopped") == digest_tree(atlas_dir)


def test_ctrl_c_does_not_wait_for_a_server_that_stalls(
    tmp_path: Path, atlas_bucket: Path, gcs: GcsServer, proxy: FaultProxy
) -> None:
    gcs.put_folder("stalling", atlas_bucket)
    with proxy.stall_at(2) as stalled:
        data_dir = tmp_path / "stopped"
        process = start("gs://stalling", data_dir, "fetching.pool.download", "pass", proxy.url)
        killer = threading.Timer(60, process.kill)  # far below the time-outs of a request
        killer.start()
        assert stalled.wait(60)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate()
        killer.cancel()
    assert process.returncode == -signal.SIGINT, said
    assert "stopped: the same command goes on from here" in said
    source = ScBaseCount(url="gs://stalling", storage_options=gcs.storage_options)
    recipe = Recipe(source=source, **ATLAS_SETTINGS)
    for name in ("stopped", "undisturbed"):
        prepare(recipe, tmp_path / name)
    assert digest_tree(tmp_path / "stopped") == digest_tree(tmp_path / "undisturbed")
