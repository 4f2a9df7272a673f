"""A bucket is whole or says that it is not, and holds what was prepared last."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiff_data import DownloadError, Manifest, ManifestError, Recipe, prepare
from scdiff_data.remote import fetch_processed, sending
from scdiff_data.shards import ShardRows
from support.buckets import SMALL_SHARDS, send_small_shards, server_at
from support.cases import GcsServer, digest_tree, pbmc_recipe


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sent")
    send_small_shards(folder)
    return folder


@pytest.fixture
def place(sent: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(sent, tmp_path / "place")
    return tmp_path / "place"


def small_recipe(**changes: Any) -> Recipe:
    return pbmc_recipe(**SMALL_SHARDS | changes)


def list_objects(place: Path) -> dict[str, int]:
    files = (path for path in (place / "bucket").rglob("*") if path.is_file())
    return {path.relative_to(place / "bucket").as_posix(): path.stat().st_ino for path in files}


def test_a_bucket_holds_what_training_reads_under_names_of_its_bytes(sent: Path) -> None:
    manifest = Manifest.read(sent / "own")
    found = list_objects(sent)
    assert (sent / "bucket/config.json").read_bytes() == (sent / "own/config.json").read_bytes()
    for entry in manifest.files:
        name, _, kind = entry.path.rpartition(".")
        is_left_out = entry.path.startswith(("cells/", "statistics/"))
        assert (f"{name}.{entry.sha256[:16]}.{kind}" in found) is not is_left_out
    assert len(found) == 1 + sum(not e.path.startswith(("cells/", "st")) for e in manifest.files)


def test_what_is_there_is_not_sent_again_and_what_is_missing_is(place: Path) -> None:
    before = list_objects(place)
    shard = next(name for name in before if name.startswith("processed/batch_0003"))
    (place / "bucket" / shard).unlink()
    prepare(small_recipe(), place / "own", processed_url=f"file://{place}/bucket")
    after = list_objects(place)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {shard}


def test_a_call_that_was_killed_leaves_no_manifest_and_the_next_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = digest_tree(place / "bucket")
    shutil.rmtree(place / "bucket")
    real, n_calls = sending._put_once, 0

    def die(*arguments: Any) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls > 5:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(sending, "_put_once", die)
    with pytest.raises(KeyboardInterrupt):
        prepare(small_recipe(), place / "own", processed_url=str(place / "bucket"), n_threads=1)
    assert not (place / "bucket/config.json").exists()
    with pytest.raises(FileNotFoundError, match="holds no prepared data: call prepare"):
        fetch_processed(str(place / "bucket"), place / "copy")
    monkeypatch.undo()
    before = list_objects(place)
    prepare(small_recipe(), place / "own", processed_url=str(place / "bucket"))
    assert digest_tree(place / "bucket") == wanted
    assert before.items() <= list_objects(place).items()


def test_other_data_are_replaced_with_leave_alone_and_their_readers_are_told(place: Path) -> None:
    bucket = str(place / "bucket")
    fetch_processed(bucket, place / "reading")
    reading = ShardRows(Manifest.read(place / "reading"))
    other = small_recipe(seed=7)
    with pytest.raises(
        ValueError, match=r"^file:///.*other settings \(seed: 42 there, 7 here\).*processed_url"
    ):
        prepare(other, place / "other", processed_url=bucket)
    assert not (place / "other/config.json").exists()
    manifest = prepare(other, place / "other", processed_url=bucket, replace=True)
    n_sent = sum(not entry.path.startswith(("cells/", "st")) for entry in manifest.files)
    assert len(list_objects(place)) == 1 + n_sent
    with pytest.raises(ManifestError, match="was replaced by another run of prepare since it was"):
        reading.gather(("expression",), np.array([120]))
    # An earlier copy becomes one of what is there now.
    assert fetch_processed(bucket, place / "reading").recipe == manifest.recipe
    again = ShardRows(Manifest.read(place / "reading"))
    assert len(again.gather(("expression",), np.array([120]))[0]) == 1


def test_other_genes_of_the_same_cells_need_no_leave(place: Path) -> None:
    recipe = small_recipe(n_hvgs=32)
    prepare(recipe, place / "own", processed_url=str(place / "bucket"))
    found = json.loads((place / "bucket/config.json").read_text())
    assert found["recipe"]["n_hvgs"] == 32


def test_a_damaged_file_is_not_sent(place: Path) -> None:
    shutil.rmtree(place / "bucket")
    path = place / "own/processed/batch_0002.h5"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"batch_0002.h5 has another checksum"):
        prepare(small_recipe(), place / "own", processed_url=str(place / "bucket"))


def test_stages_without_a_network_send_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stages=process opens no network connection"):
        prepare(small_recipe(), tmp_path, processed_url="gs://any", stages="process")


def test_a_server_s_bucket_holds_the_same_and_a_missing_one_is_told(
    gcs: GcsServer, sent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending.random, "uniform", lambda *_: 0.0)
    (tmp_path / "empty").mkdir()
    gcs.put_folder("prepared", tmp_path / "empty")
    with server_at(gcs.url):
        prepare(small_recipe(), sent / "own", processed_url="gs://prepared/blood")
        copy = tmp_path / "copy"
        manifest = fetch_processed("gs://prepared/blood", copy)
        assert manifest.files == Manifest.read(sent / "own").files
        assert len(ShardRows(manifest).gather(("expression",), np.arange(60))[0]) == 60
        with pytest.raises(DownloadError, match=r"cannot write gs://missing/.*make the bucket"):
            prepare(small_recipe(), sent / "own", processed_url="gs://missing/blood")
