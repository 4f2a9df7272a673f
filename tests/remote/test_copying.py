"""A local copy is made without the source, and is nothing else than a copy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiff_data import (
    Bucket,
    Manifest,
    ManifestError,
    Pbmc,
    Recipe,
    check_data_dir,
    choose_genes_again,
    convert_shards,
    describe,
    prepare,
)
from scdiff_data.remote import copying, fetch_processed
from scdiff_data.shards import ShardRows, check_shards
from support.buckets import SMALL_SHARDS, count_shards, send_small_shards
from support.cases import digest_tree, pbmc_recipe


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sent")
    send_small_shards(folder)
    return folder


class Away(Pbmc):
    """A source that cannot be reached."""

    def open(self, workdir: Path) -> Bucket:
        raise OSError("no network")


def test_prepare_takes_finished_data_of_its_recipe_from_the_bucket(
    sent: Path, tmp_path: Path
) -> None:
    recipe = Recipe(source=Away(), **SMALL_SHARDS)
    for _ in range(2):
        manifest = prepare(recipe, tmp_path, processed_url=str(sent / "bucket"), local_limit=10**6)
    assert (tmp_path / "config.json").read_bytes() == (sent / "own/config.json").read_bytes()
    assert count_shards(tmp_path) == 0
    assert prepare(recipe, tmp_path) == manifest
    check_shards(manifest, full=True)
    assert check_data_dir(tmp_path) == []
    assert describe(tmp_path).facts["state"] == "whole"


def test_a_copy_that_was_cut_off_is_none_until_it_is_finished(
    sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, n_calls = copying.download, 0

    def die(*arguments: Any, **more: Any) -> Any:
        nonlocal n_calls
        n_calls += 1
        if n_calls > 2:
            raise KeyboardInterrupt
        return real(*arguments, **more)

    monkeypatch.setattr(copying, "download", die)
    with pytest.raises(KeyboardInterrupt):
        fetch_processed(str(sent / "bucket"), tmp_path)
    with pytest.raises(FileNotFoundError, match="no shards in"):
        Manifest.read(tmp_path)
    monkeypatch.undo()
    fetch_processed(str(sent / "bucket"), tmp_path)
    (counts,) = ShardRows(Manifest.read(tmp_path)).gather(("expression",), np.arange(20))
    assert counts.shape == (20, 64)


def test_nothing_is_prepared_in_a_copy(sent: Path, tmp_path: Path) -> None:
    fetch_processed(str(sent / "bucket"), tmp_path)
    before = digest_tree(tmp_path)
    for change in (
        lambda: prepare(pbmc_recipe(**SMALL_SHARDS | {"seed": 1}), tmp_path, replace=True),
        lambda: convert_shards(tmp_path, "compact"),
        lambda: choose_genes_again(tmp_path, n_hvgs=8, replace=True),
    ):
        with pytest.raises(ValueError, match=r"is a local copy of file://.*, in which nothing"):
            change()
    assert digest_tree(tmp_path) == before


def test_data_of_its_own_are_no_copy(sent: Path, tmp_path: Path) -> None:
    bucket = str(sent / "bucket")
    assert fetch_processed(bucket, sent / "own").n_cells["train"] > 0  # what was sent from there
    assert not (sent / "own/bucket.json").exists()
    prepare(pbmc_recipe(n_hvgs=8), tmp_path / "other")
    with pytest.raises(ValueError, match="holds data of its own, not a copy"):
        fetch_processed(bucket, tmp_path / "other")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/hvg_info.json").write_text("mine")
    with pytest.raises(ValueError, match="which scdiff_data did not write"):
        fetch_processed(bucket, tmp_path / "mine")
    assert (tmp_path / "mine/hvg_info.json").read_text() == "mine"


def test_what_is_no_bucket_and_no_limit_is_told(sent: Path, tmp_path: Path) -> None:
    url: Any
    for url in ("", sent / "bucket", None):
        with pytest.raises(ValueError, match="processed_url must be a text, gs://"):
            fetch_processed(url, tmp_path)
    limit: Any
    for limit in (0, 1.5, "3GB"):
        with pytest.raises(ValueError, match="local_limit must be a whole number of bytes"):
            fetch_processed(str(sent / "bucket"), tmp_path, local_limit=limit)
    with pytest.raises(ValueError, match="is both data_dir and processed_url"):
        fetch_processed(str(sent / "bucket"), sent / "bucket/../bucket")


def test_a_damaged_shard_is_deleted_and_comes_again(sent: Path, tmp_path: Path) -> None:
    manifest = fetch_processed(str(sent / "bucket"), tmp_path)
    ShardRows(manifest)
    manifest.shards[0].write_bytes(b"cut off")
    with pytest.raises(ManifestError, match="run the same command, which fetches it again"):
        check_shards(manifest, full=False)
    manifest.shards[0].write_bytes(bytes(manifest.shard_entries[0].size))
    with pytest.raises(ManifestError, match=r"batch_0000\.h5 is damaged .*delete it and fetch"):
        ShardRows(manifest)
    manifest.shards[0].unlink()
    (tmp_path / "bucket.json").write_bytes(b"cut off")
    with pytest.raises(ManifestError, match=r"bucket\.json is damaged .*: fetch this local copy"):
        ShardRows(manifest)
    fetch_processed(str(sent / "bucket"), tmp_path)
    assert count_shards(tmp_path) == 0
    ShardRows(manifest)
    check_shards(manifest, full=True)
    assert count_shards(tmp_path) == 1


def test_what_is_here_is_used_while_the_bucket_is_out_of_reach(
    sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from scdiff_data import DownloadError
    from scdiff_data.remote import PreparedBucket

    def refuse(_: PreparedBucket) -> None:
        raise DownloadError("cannot reach it")

    url = str(sent / "bucket")
    wanted = fetch_processed(url, tmp_path / "copy")
    monkeypatch.setattr(PreparedBucket, "read_index", refuse)
    assert fetch_processed(url, tmp_path / "copy") == wanted
    assert "cannot reach it; what" in caplog.text
    with pytest.raises(DownloadError):
        fetch_processed(url, tmp_path / "new")
