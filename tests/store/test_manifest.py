"""The manifest is found, says how the data were made, and names what differs from it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from scdiff_data import ManifestError
from scdiff_data.base import hash_file, read_sealed, write_sealed
from scdiff_data.base.files import FileEntry
from scdiff_data.store import digest_settings
from scdiff_data.store.layout import DataDirectory
from scdiff_data.store.manifest import Manifest, mark_unfinished


def test_a_manifest_is_found_from_the_directory_and_from_processed(pbmc_dir: Path) -> None:
    assert Manifest.read(pbmc_dir) == Manifest.read(str(pbmc_dir / "processed"))


def test_a_missing_manifest_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"config\.json is missing; call prepare\(recipe, data_dir\)"
    ):
        Manifest.read(tmp_path / "processed")


def test_a_manifest_that_is_taken_away_while_it_is_looked_for_says_what_to_run(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.json").write_text("{}")

    def take_away(path: Path) -> None:
        path.unlink()
        path.read_text()

    with (
        patch("scdiff_data.store.manifest.read_sealed", take_away),
        pytest.raises(FileNotFoundError, match=r"call prepare\(recipe, data_dir\)"),
    ):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"schema_version": 99}', "schema_version 99"),
        ('{"cell_count": 100}', "schema_version none.*prepare again in a new directory"),
    ],
)
def test_a_damaged_or_foreign_manifest_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ManifestError, match=message):
        Manifest.read(tmp_path)


def test_the_manifest_says_how_the_data_were_made(pbmc_dir: Path) -> None:
    content = json.loads((pbmc_dir / "config.json").read_text())
    assert content["recipe"]["source"] == {"source": "pbmc"}
    assert content["recipe"]["n_hvgs"] == 64
    assert content["genes"]["n_reference"] == 765
    assert sum(content["cells"].values()) == 700
    assert content["packages"]["h5py"]
    assert str(pbmc_dir) not in json.dumps(content)


@pytest.mark.parametrize("damage", ["missing", "has 3 bytes"])
def test_files_that_differ_from_the_manifest_are_named(
    tmp_path: Path, pbmc_dir: Path, damage: str
) -> None:
    entry = FileEntry("processed/batch_0000.h5", size=10, sha256="0")
    manifest = replace(Manifest.read(pbmc_dir), data_dir=tmp_path, files=(entry,))
    if damage != "missing":
        (tmp_path / "processed").mkdir()
        (tmp_path / "processed" / "batch_0000.h5").write_bytes(b"abc")
    with pytest.raises(ManifestError, match=rf"batch_0000\.h5.*{damage}.*prepare again"):
        manifest.check_files()


def test_a_file_that_is_taken_away_while_it_is_read_is_missing(
    tmp_path: Path, pbmc_dir: Path
) -> None:
    path = tmp_path / "batch_0000.h5"
    path.write_bytes(b"abc")
    entry = FileEntry(path.name, size=3, sha256="0")
    manifest = replace(Manifest.read(pbmc_dir), data_dir=tmp_path, files=(entry,))

    def take_away(path: Path) -> str:
        path.unlink()
        return hash_file(path)

    with (
        patch("scdiff_data.base.files.hash_file", take_away),
        pytest.raises(ManifestError, match=r"batch_0000\.h5 is missing"),
    ):
        manifest.check_file(entry, full=True)


def test_a_manifest_that_is_set_aside_can_be_read_again(tmp_path: Path, pbmc_dir: Path) -> None:
    directory = DataDirectory(tmp_path)
    made = replace(Manifest.read(pbmc_dir), data_dir=tmp_path)
    made.write()
    assert Manifest.read(tmp_path) == made
    directory.metadata.mkdir()
    mark_unfinished(directory, keep=True)
    assert not directory.manifest.exists()
    assert Manifest.read_replaced(directory) == made
    directory.replaced.write_text("{")
    with pytest.raises(ManifestError, match=r"replaced\.json is damaged"):
        Manifest.read_replaced(directory)
    mark_unfinished(directory)
    assert Manifest.read_replaced(directory) is None


def put(content: Any, place: tuple[Any, ...], value: Any) -> None:
    for key in place[:-1]:
        content = content[key]
    content[place[-1]] = value


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("genes", "n_chosen"), -1, "genes.n_chosen is -1, not a number from 0"),
        (("genes",), [], r"genes is \[\], not an object"),
        (("cells", "test"), None, "cells.test is None, not a whole number"),
        (("experiments",), {"train": 1}, r"experiments is of \['train'\]"),
        (("files", 0, "size"), "9", r"files\[0\].size is '9', not a whole number"),
        (("files", 0), {"path": "x"}, r"files\[0\].size is missing"),
        (("files", 0, "path"), "/outside", "files lists '/outside', which is no file of"),
        (("shards_key",), "/outside", "shards_key is '/outside', not 16 hex digits"),
        (("files", 0, "path"), "", "files lists '', which is no file of the directory"),
        (("files", 0, "sha256"), "", "files says that .* has the sha256 ''"),
        (("files", 0, "size"), 2**64, r"files\[0\].size is 18446744073709551616, not a number"),
        (("files", 0, "path"), "processed/batch_0000.h5", "files lists"),
        (("files",), {}, "files is {}, not a list"),
        (("recipe", "flavor"), 5, "recipe is not what recipe_digest was taken of"),
        (("shard_format",), "sparse", "shard_format is 'sparse'"),
        (("dropped", "counts_saturated"), True, "dropped.counts_saturated is True"),
        (("schema_version",), None, "schema_version is None, not a whole number"),
        (("packages", "h5py"), 3, "packages.h5py is 3, not a text"),
    ],
)
def test_what_cannot_be_is_named_though_the_checksum_is_right(
    pbmc_dir: Path, tmp_path: Path, place: tuple[Any, ...], value: Any, named: str
) -> None:
    content = read_sealed(pbmc_dir / "config.json")
    put(content, place, value)
    write_sealed(tmp_path / "config.json", content)
    with pytest.raises(ManifestError, match=rf"config\.json is damaged \({named}"):
        Manifest.read(tmp_path)


def test_a_shard_of_no_cells_is_named_though_all_digests_are_right(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    content = read_sealed(pbmc_dir / "config.json")
    recipe = content["recipe"] | {"shard_size": 0}
    content |= {"recipe": recipe, "recipe_digest": digest_settings(recipe)}
    write_sealed(tmp_path / "config.json", content)
    with pytest.raises(ManifestError, match=r"damaged \(recipe.shard_size is 0, not at least 1"):
        Manifest.read(tmp_path)


def test_shards_in_another_order_are_refused(pbmc_dir: Path, tmp_path: Path) -> None:
    content = read_sealed(pbmc_dir / "config.json")
    first, *_, last = [e for e in content["files"] if e["path"].startswith("processed/")]
    first["path"], last["path"] = last["path"], first["path"]
    write_sealed(tmp_path / "config.json", content)
    with pytest.raises(
        ManifestError, match=r"files lists .*batch_0002\.h5 in the place of another"
    ):
        Manifest.read(tmp_path)
