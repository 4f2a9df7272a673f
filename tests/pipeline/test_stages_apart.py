"""`stages=download` where there is a network, `stages=process` where there is none."""

import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from scdiff_data import H5adFolder, Manifest, Recipe, ScBaseCount, prepare
from support import forks
from support.cases import ATLAS_SETTINGS, TESTS, GcsServer, digest_tree


def refuse(*_: object) -> None:
    raise AssertionError("a network connection was opened")


@pytest.fixture(scope="module")
def recipe(gcs: GcsServer, atlas_bucket: Path) -> Recipe:
    gcs.put_folder("apart", atlas_bucket)
    source = ScBaseCount(url="gs://apart", storage_options=gcs.storage_options)
    return Recipe(source=source, **ATLAS_SETTINGS)


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = tmp_path_factory.mktemp("whole")
    prepare(recipe, path)
    return digest_tree(path)


def test_both_make_the_bytes_of_one_run_and_the_second_opens_no_connection(
    tmp_path: Path, recipe: Recipe, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare(recipe, tmp_path, stages="download") is None
    assert not (tmp_path / "processed").exists()
    with pytest.raises(FileNotFoundError, match=r"stages=download is done.*stages=process"):
        Manifest.read(tmp_path)
    with monkeypatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, refuse)
        assert prepare(recipe, tmp_path, stages="process").shards
        assert digest_tree(tmp_path) == whole
        # Finished, it is found; other genes take what is there.
        assert prepare(recipe, tmp_path, stages="process").n_cells
        fewer = recipe.from_settings(recipe.settings(), n_hvgs=20).of_source(recipe.source)
        assert prepare(fewer, tmp_path, stages="process").genes.n_chosen == 20


KILL_SCRIPT = """
import os, signal, socket, sys
import scdiff_data.{module} as module
from scdiff_data import Recipe, ScBaseCount, prepare
from support.cases import ATLAS_SETTINGS

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

real, calls = module.{function}, []

def kill_at(*args, **kwargs):
    calls.append(1)
    return kill() if len(calls) == {call} else real(*args, **kwargs)

module.{function} = kill_at
source = ScBaseCount(url=sys.argv[1])
prepare(Recipe(source=source, **ATLAS_SETTINGS), sys.argv[2], stages="{stages}")
"""


def test_each_goes_on_after_a_kill_to_the_same_bytes(
    tmp_path: Path, atlas_bucket: Path, atlas_dir: Path
) -> None:
    recipe = Recipe(source=ScBaseCount(url=str(atlas_bucket)), **ATLAS_SETTINGS)
    for stages, module, function, call in (
        ("download", "pipeline.make_archives", "write_statistics", 2),
        ("process", "shards.contents", "write_dense", 3),
    ):
        script = KILL_SCRIPT.format(stages=stages, module=module, function=function, call=call)
        killed = forks.run(script, str(atlas_bucket), str(tmp_path / "data"), cwd=TESTS)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not (tmp_path / "data" / "config.json").exists()
        prepare(recipe, tmp_path / "data", stages=stages)
    assert digest_tree(tmp_path / "data") == digest_tree(atlas_dir)


def atlas(bucket: Path, **changes: Any) -> Recipe:
    return Recipe(source=ScBaseCount(url=str(bucket)), **(ATLAS_SETTINGS | changes))


def test_what_is_lacking_is_said_with_the_way_out(tmp_path: Path, atlas_bucket: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lacks .*downloaded.json.*stages=download first"):
        prepare(atlas(atlas_bucket), tmp_path, stages="process")
    prepare(atlas(atlas_bucket, cell_count=60), tmp_path, stages="download")
    with pytest.raises(FileNotFoundError, match=r"lacks .*cells/SRX.*\.h5ad: run the same with"):
        prepare(atlas(atlas_bucket, cell_count=150), tmp_path, stages="process")
    with pytest.raises(ValueError, match="gene_axis: 'first' there, 'union' here"):
        prepare(atlas(atlas_bucket, cell_count=60, gene_axis="union"), tmp_path, stages="process")
    archive = next((tmp_path / "cells").glob("*.h5ad"))
    content = bytearray(archive.read_bytes())
    content[-1] ^= 1
    archive.write_bytes(content)
    with pytest.raises(FileNotFoundError, match=r"\.h5ad as its record describes it"):
        prepare(atlas(atlas_bucket, cell_count=60), tmp_path, stages="process")
    for wrong in ({"stages": "fetch"}, {"stages": "process", "refresh_catalog": True}):
        with pytest.raises(ValueError, match="stages"):
            prepare(atlas(atlas_bucket), tmp_path, **wrong)


def test_an_empty_split_and_a_label_that_is_none_are_told_where_there_is_a_network(
    tmp_path: Path, atlas_bucket: Path
) -> None:
    by_value = {"by": "tissue", "val": ["nowhere"], "test": []}
    for wrong, message in (
        ({"split": by_value}, "the val split is empty"),
        ({"labels": ("nothing",)}, "the label 'nothing'"),
    ):
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                prepare(atlas(atlas_bucket, **wrong), tmp_path, stages="download")
    # What was downloaded serves without a network, too.
    assert prepare(atlas(atlas_bucket), tmp_path, stages="process").n_cells["val"]


def test_a_finished_directory_that_lacks_cells_stays_finished(
    tmp_path: Path, atlas_bucket: Path
) -> None:
    prepare(atlas(atlas_bucket, cell_count=60), tmp_path)
    before = digest_tree(tmp_path)
    with pytest.raises(FileNotFoundError, match="stages=download first"):
        prepare(atlas(atlas_bucket, cell_count=150), tmp_path, stages="process")
    assert digest_tree(tmp_path) == before
    assert prepare(atlas(atlas_bucket, cell_count=60), tmp_path, stages="download") is None
    assert digest_tree(tmp_path) == before


def test_own_files_on_a_server_are_not_listed_again(
    tmp_path: Path, gcs: GcsServer, atlas_bucket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcs.put_folder("own-apart", atlas_bucket / "scbasecount")
    settings = ATLAS_SETTINGS | {"labels": (), "min_pass_fraction": 0.0}
    source = H5adFolder("gs://own-apart", storage_options=gcs.storage_options)
    recipe = Recipe(source=source, **settings)
    prepare(recipe, tmp_path / "one")
    prepare(recipe, tmp_path / "two", stages="download")
    with monkeypatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, refuse)
        prepare(recipe, tmp_path / "two", stages="process")
        prepare(recipe, tmp_path / "two", stages="process")
    assert digest_tree(tmp_path / "two") == digest_tree(tmp_path / "one")
