"""docs/format.md is enough: a program written from it reads what this package reads."""

import ast
from pathlib import Path

import h5py
import numpy as np
import pytest

from scdiff_data import HVGDataset, ScRNADataset, prepare
from support import independent_reader
from support.cases import pbmc_recipe
from support.fallback import MIN_GENES

READER = Path(independent_reader.__file__)


@pytest.fixture(scope="module")
def fallback_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real cells again, some places holding other genes."""
    folder = tmp_path_factory.mktemp("fallback")
    prepare(pbmc_recipe(fallback_min_genes=MIN_GENES), folder)
    return folder


def test_the_reader_is_short_and_knows_nothing_of_the_package() -> None:
    text = READER.read_text("utf-8")
    assert len(text.splitlines()) < 100
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert imported == {
        "collections",
        "h5py",
        "hashlib",
        "itertools",
        "json",
        "numpy",
        "pathlib",
        "typing",
    }


@pytest.mark.parametrize("kind", ["pbmc_dir", "compact_dir", "fallback_dir"])
def test_it_reads_shards_as_the_package_does(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    for split in ("train", "val", "test"):
        dataset = HVGDataset(folder, split=split)
        cells = list(independent_reader.read_split(folder, split))
        counts, metadata = dataset[:]
        words = [*dataset.categories["cell_type"], None]
        assert np.array_equal(counts, [cell["counts"] for cell in cells])
        assert [cell["id"] for cell in cells] == list(metadata["cell_id"])
        assert [cell["experiment"] for cell in cells] == list(metadata["experiment_id"])
        assert [cell["total"] for cell in cells] == metadata["total_counts"].tolist()
        assert [cell["labels"]["cell_type"] for cell in cells] == [
            words[code] for code in metadata["cell_type"]
        ]
        if kind == "fallback_dir":
            assert np.array_equal(metadata["gene_ids"], [cell["genes"] for cell in cells])
            assert any((cell["genes"] != cells[0]["genes"]).any() for cell in cells)


def test_it_reads_archives_as_the_package_does_and_shards_are_part_of_them(pbmc_dir: Path) -> None:
    archived = {}
    for path in sorted((pbmc_dir / "cells").glob("*.h5ad")):
        archived |= independent_reader.read_archive(path)
    counts, metadata = ScRNADataset(pbmc_dir, split="test")[:]
    assert np.array_equal(counts.to_dense(), [archived[cell] for cell in metadata["cell_id"]])
    for cell in independent_reader.read_split(pbmc_dir, "test"):
        assert np.array_equal(archived[cell["id"]][cell["genes"]], cell["counts"])


def test_it_notices_what_the_page_says_can_be_noticed(data_dir: Path) -> None:
    manifest = data_dir / "config.json"
    said = manifest.read_text("utf-8")
    manifest.write_text(said.replace('"train": ', '"train": 1'), "utf-8")
    with pytest.raises(ValueError, match=r"config.json was changed"):
        independent_reader.read_manifest(data_dir)
    manifest.write_text(said, "utf-8")
    with h5py.File(data_dir / "processed" / "batch_0001.h5", "r+") as shard:
        shard["expression"][0, 0] += 1
    with pytest.raises(ValueError, match=r"batch_0001.h5 was changed"):
        next(independent_reader.read_split(data_dir, "train"))


def test_the_pages_example_of_a_packed_cell_is_right() -> None:
    packed = np.array([4, 7, 1, 1, 255, 0, 41, 4, 0, 1], np.uint8)
    counts = independent_reader.unpack(packed, 400)
    assert {c: counts[c] for c in counts.nonzero()[0]} == {3: 7, 4: 1, 300: 260}
