"""The user's files are found wherever a path says, and known again when they change."""

import gzip
import os
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import anndata as ad
import fsspec
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse as sp

from scdiff_data import CountError, DownloadError, H5adFolder, Recipe, prepare
from support.h5ad import counts_of, write_10x_h5
from support.reading import read_shards

IDS = [f"ENSG{i:011d}" for i in range(40)]
SYMBOLS = [f"GENE{i}" for i in range(40)]


def write(path: Path, seed: int = 0, n: int = 20, **obs: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    var = pd.DataFrame({"gene_symbols": SYMBOLS}, index=IDS)
    names = [f"cell{i}" for i in range(n)]
    counts = sp.csr_matrix(counts_of(seed, n))
    ad.AnnData(counts, pd.DataFrame(obs, index=names), var).write_h5ad(path)
    return path


def make(source: H5adFolder, data_dir: Path, *, replace: bool = False, **changes: Any) -> Any:
    usual = {"min_genes": None, "min_counts": None, "labels": (), "n_hvgs": None}
    settings = usual | {"split": {"by": "cell", "val": 0, "test": 0}} | changes
    return prepare(Recipe(source=source, **settings), data_dir, replace=replace)


def list_words(data_dir: Path, label: str) -> list[str]:
    with h5py.File(data_dir / "processed" / "batch_0000.h5") as shard:
        return list(shard[f"labels/{label}/categories"].asstr()[:])


def list_catalog(path: Any, workdir: Path, **settings: Any) -> dict[str, list[Any]]:
    source = H5adFolder(path, **settings)
    return source.read_catalog(source.open(workdir)).to_pydict()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files in folders, and what is beside them."""
    for name in ("a.h5ad", "deep/b.h5ad", "deep/er/a.h5ad", "my sample (1).h5ad"):
        write(tmp_path / "tree" / name)
    (tmp_path / "tree" / "._a.h5ad").write_bytes(bytes(4096))
    (tmp_path / "tree" / ".cache").mkdir()
    write(tmp_path / "tree" / ".cache" / "c.h5ad")
    (tmp_path / "tree" / "notes.txt").write_text("mine")
    return tmp_path / "tree"


def test_a_folder_is_looked_through_and_strangers_are_named(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = list_catalog(str(tree), tree.parent)
    assert found["experiment_id"] == ["a", "b", "deep_er_a", "my_sample_1_"]
    assert found["path"] == ["a.h5ad", "deep/b.h5ad", "deep/er/a.h5ad", "my sample (1).h5ad"]
    assert "1 files are left out" in caplog.text
    assert "notes.txt" in caplog.text


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        ("{}/a.h5ad", ["a"]),
        ("{}/deep/*.h5ad", ["b"]),
        ("{}/**/a.h5ad", ["a", "deep_er_a"]),
        (["{}/deep/b.h5ad", "{}/a.h5ad"], ["a", "b"]),
        ("~/tree/a.h5ad", ["a"]),
    ],
)
def test_a_path_is_a_file_a_pattern_a_list_or_at_home(
    tree: Path, paths: Any, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tree.parent))
    one = isinstance(paths, str)
    given = paths.format(tree) if one else [path.format(tree) for path in paths]
    assert sorted(list_catalog(given, tree.parent)["experiment_id"]) == ids


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{}/nowhere", "no such file or folder"),
        ("{}/*.loom", r"no \*.h5ad file in"),
        ([], "an empty list"),
    ],
)
def test_a_path_without_files_is_an_error(tree: Path, path: Any, message: str) -> None:
    given = path.format(tree) if isinstance(path, str) else path
    with pytest.raises(FileNotFoundError, match=message):
        H5adFolder(given).settings()


def test_a_file_that_changes_at_the_same_size_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "files" / "a.h5ad")
    write(tmp_path / "files" / "b.h5ad", seed=1)
    source = H5adFolder(str(tmp_path / "files"))
    make(source, tmp_path / "data")
    size, before = path.stat().st_size, read_shards(tmp_path / "data").counts.sum()
    kept = (tmp_path / "data" / "cells" / "b.h5ad").stat().st_mtime_ns
    with h5py.File(path, "r+") as file:
        file["X/data"][:] = file["X/data"][:] + 1
    assert path.stat().st_size == size
    with pytest.raises(ValueError, match=r"other settings \(source: its files have changed\)"):
        make(source, tmp_path / "data")
    make(source, tmp_path / "data", replace=True)
    assert read_shards(tmp_path / "data").counts.sum() > before
    assert (tmp_path / "data" / "cells" / "b.h5ad").stat().st_mtime_ns == kept
    settings = source.settings()
    os.utime(path, (1, 1))
    assert source.settings() != settings


def test_a_failure_that_is_believed_names_the_way_to_try_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "files" / "a.h5ad")
    bad = write(tmp_path / "files" / "b.h5ad")
    with h5py.File(bad, "r+") as file:
        file["X/data"][0] = 0.5
    source = H5adFolder(str(tmp_path / "files"))
    for _ in range(2):
        caplog.clear()
        manifest = make(source, tmp_path / "data", max_failed_fraction=0.5, seed=1)
        (tmp_path / "data" / "config.json").unlink()
    assert sum(manifest.n_cells.values()) == 20
    assert "is not tried again without retry_failed: b.h5ad does not hold counts" in caplog.text


def test_one_own_file_that_is_lost_stops_the_run_by_name(tmp_path: Path) -> None:
    write(tmp_path / "files" / "a.h5ad")
    (tmp_path / "files" / "b.h5ad").write_text("<html>404</html>")
    with pytest.raises(
        Exception, match=r"1 of \d experiments failed.*b: b\.h5ad is not a readable"
    ):
        make(H5adFolder(str(tmp_path / "files")), tmp_path / "data")


def test_every_run_tells_what_it_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "files" / "a.h5ad")
    (tmp_path / "files" / "b.h5ad").write_bytes(b"")
    make(H5adFolder(str(tmp_path / "files")), tmp_path / "data", max_failed_fraction=0.5)
    table = caplog.text[caplog.text.index("what became of the experiments") :]
    for line in ("experiments tried  2", "left out           1", "b: b.h5ad is not a", "drawn "):
        assert line in table


def as_10x_mtx(folder: Path, counts: np.ndarray) -> None:
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as file:
        scipy.io.mmwrite(file, sp.coo_matrix(counts.T.astype(np.int32)))
    rows = zip(IDS, SYMBOLS, strict=True)
    with gzip.open(folder / "features.tsv.gz", "wt") as file:
        file.writelines(f"{gene}\t{symbol}\tGene Expression\n" for gene, symbol in rows)
    with gzip.open(folder / "barcodes.tsv.gz", "wt") as file:
        file.writelines(f"cell{i}\n" for i in range(len(counts)))


def shorten(file: h5py.File, name: str, dtype: type) -> None:
    """Store whole numbers as a type that is too short for them."""
    values = file[name][()]
    del file[name]
    file[name] = values.astype(dtype)


def test_a_matrix_of_10x_that_changes_or_breaks_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    for more in (0, 1):
        write_10x_h5(path, counts_of(1, 20) + more)
        make(H5adFolder(path), tmp_path / "data", replace=True)
        assert read_shards(tmp_path / "data").counts.sum() == (counts_of(1, 20) + more).sum()
    assert len(list((tmp_path / "data" / "source").iterdir())) == 1
    for change in (
        lambda file: file["matrix/indices"].__setitem__(5, 10**9),
        lambda file: file["matrix/indptr"].__setitem__(2, 10**9),
        lambda file: shorten(file, "matrix/indptr", np.int8),
        lambda file: file.__delitem__("matrix/features"),
    ):
        write_10x_h5(path, counts_of(1, 30))  # whose last place is negative where it wraps around
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(CountError, match=r"x\.h5 cannot be read: as 10x h5: "):
            make(H5adFolder(path), tmp_path / "data", replace=True)


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
def test_matrices_of_10x_and_zarr_stand_beside_h5ad(tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    folder = tmp_path / "files"
    write(folder / "a.h5ad", seed=0)
    write_10x_h5(folder / "b.h5", counts_of(1, 20))
    as_10x_mtx(folder / "c", counts_of(2, 20))
    ad.read_h5ad(write(tmp_path / "d.h5ad", seed=3)).write_zarr(folder / "d.zarr")
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = 1  # of no kind that is read
    source = H5adFolder(str(folder))
    make(source, tmp_path / "data")
    assert H5adFolder(str(folder)).settings() == source.settings()
    cells = read_shards(tmp_path / "data")
    found = dict(zip(cells.cell_ids, cells.counts, strict=True))
    assert cells.gene_ids == IDS
    for seed, name in enumerate("abcd"):
        for i, row in enumerate(counts_of(seed, 20)):
            assert np.array_equal(found[f"{name}_cell{i}"], row), (name, i)


def test_files_of_any_file_system_are_fetched(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for seed, name in enumerate(("a", "b")):
        memory.pipe(f"/atlas/{name}.h5ad", write(tmp_path / f"{name}.h5ad", seed).read_bytes())
    make(H5adFolder("memory://atlas"), tmp_path / "remote")
    make(H5adFolder([str(tmp_path / "a.h5ad"), str(tmp_path / "b.h5ad")]), tmp_path / "local")
    remote, local = (read_shards(tmp_path / name) for name in ("remote", "local"))
    assert remote.cell_ids == local.cell_ids
    assert np.array_equal(remote.counts, local.counts)
    memory.rm("/atlas", recursive=True)


def test_the_values_of_a_column_are_the_experiments(tmp_path: Path) -> None:
    donors = ["d 1", "d/1", "x"] * 10
    write(tmp_path / "files" / "a.h5ad", n=30, donor=donors)
    write(tmp_path / "files" / "b.h5ad", n=30, donor=["x"] * 30)
    source = H5adFolder(str(tmp_path / "files"), experiment_key="donor")
    few = make(source, tmp_path / "few", filters={"donor": ["x"]})
    assert few.n_cells["train"] == 40
    manifest = make(source, tmp_path / "data", max_cells_per_experiment=8)
    table = pd.read_parquet(tmp_path / "data" / "metadata" / "cells.parquet")
    assert table["experiment_id"].value_counts().tolist() == [8, 8, 8, 8]
    assert manifest.n_experiments["train"] == 4
    cells = read_shards(tmp_path / "data")
    whole = counts_of(0, 30)
    for cell_id, row in zip(cells.cell_ids, cells.counts, strict=True):
        name, number = cell_id.rsplit("_cell", 1)
        assert np.array_equal(row, whole[int(number)])
        if name.startswith("a."):
            assert name.startswith("a." + donors[int(number)].replace(" ", "_").replace("/", "_"))


def test_cells_without_an_experiment_are_lost_by_name(tmp_path: Path) -> None:
    write(tmp_path / "files" / "a.h5ad", n=30, donor=[1.0, np.nan, 2.0] * 10)
    source = H5adFolder(tmp_path / "files", experiment_key="donor")
    with pytest.raises(DownloadError, match=r"a\.h5ad: 10 cells have no donor"):
        make(source, tmp_path / "data")
    manifest = make(source, tmp_path / "data", max_failed_fraction=0.5)
    assert sum(manifest.n_cells.values()) == 20


def test_an_experiment_key_that_is_no_column_names_those_there_are(tmp_path: Path) -> None:
    write(tmp_path / "files" / "a.h5ad", donor=["x"] * 20)
    source = H5adFolder(tmp_path / "files", experiment_key="dono")
    with pytest.raises(CountError, match=r"experiment_key names 'dono', .* they have \[.*'donor'"):
        make(source, tmp_path / "data")


def test_paths_may_be_paths(tmp_path: Path) -> None:
    path = write(tmp_path / "files" / "a.h5ad")
    folder, files = H5adFolder(tmp_path / "files"), H5adFolder([path])
    assert folder.settings() == files.settings() == H5adFolder(f"{path.parent}/").settings()


def test_a_misspelt_gene_axis_says_what_there_is(tmp_path: Path) -> None:
    write(tmp_path / "files" / "a.h5ad")
    with pytest.raises(ValueError, match=r"gene_axis must be one of first.*got 'unoin'"):
        make(H5adFolder(tmp_path / "files"), tmp_path / "data", gene_axis="unoin")


@pytest.mark.parametrize(
    ("filters", "n"),
    [
        ({"is_primary": True}, 10),
        ({"disease": ["Normal"], "age": {"min": 5}}, 5),
        ({"age": [3, 4]}, 2),
    ],
)
def test_cells_are_filtered_by_their_columns(
    tmp_path: Path, filters: dict[str, Any], n: int
) -> None:
    columns = {
        "is_primary": [i % 2 == 0 for i in range(20)],
        "disease": ["normal"] * 10 + ["flu"] * 10,
        "age": list(range(20)),
    }
    write(tmp_path / "files" / "a.h5ad", **columns)
    manifest = make(H5adFolder(str(tmp_path / "files")), tmp_path / "data", cell_filters=filters)
    assert sum(manifest.n_cells.values()) == n
    assert manifest.dropped["cells_filtered"] == 20 - n


def test_a_file_without_a_filtered_column_is_lost_by_name(tmp_path: Path) -> None:
    write(tmp_path / "files" / "a.h5ad")
    with pytest.raises(DownloadError, match=r"cell_filters name .age., which the file.s cells do"):
        make(H5adFolder(str(tmp_path / "files")), tmp_path / "data", cell_filters={"age": 3})


def test_mitochondrial_counts_and_small_files_are_filtered(tmp_path: Path) -> None:
    counts = np.zeros((20, 40), np.float32)
    counts[:, 0], counts[:, 1] = np.arange(20), 20 - np.arange(20)
    path = write(tmp_path / "files" / "a.h5ad")
    cells = ad.read_h5ad(path)
    cells.X = sp.csr_matrix(counts)
    cells.var["gene_symbols"] = ["MT-ND1", *SYMBOLS[1:]]
    cells.write_h5ad(path)
    source = H5adFolder(str(tmp_path / "files"))
    for number, genes in enumerate(("MT-", [IDS[0]], ["MT-ND1"])):
        settings = {"max_mito_pct": 25, "mito_genes": genes}
        manifest = make(source, tmp_path / str(number), **settings)
        assert sum(manifest.n_cells.values()) == 6
    other = ad.read_h5ad(write(tmp_path / "files" / "b.h5ad", seed=1))
    other.X = sp.csr_matrix(np.hstack([np.zeros((20, 1)), counts_of(1, 20)[:, 1:]]))
    other.var["gene_symbols"] = ["MT-ND1", *SYMBOLS[1:]]
    other.write_h5ad(tmp_path / "files" / "b.h5ad")
    for name, least in (("min_cells", 7), ("min_pass_fraction", 0.5)):
        made = make(source, tmp_path / name, **settings, **{name: least})
        assert sum(made.n_cells.values()) == 20
        assert made.dropped["experiments_skipped"] == 1
        text = (tmp_path / name / "metadata" / "experiments.json").read_text()
        assert f"only 6 of 20 cells pass QC, fewer than {name}={least}" in text


def test_labels_with_fixed_values_have_these_codes(tmp_path: Path) -> None:
    write(tmp_path / "files" / "a.h5ad", kind=["T", "B"] * 10)
    source = H5adFolder(str(tmp_path / "files"))
    make(source, tmp_path / "data", labels={"kind": ["B", "NK", "T"]})
    assert list_words(tmp_path / "data", "kind") == ["B", "NK", "T"]
    with pytest.raises(ValueError, match=r"labels fix the values of 'kind'.*others: \['T'\]"):
        make(source, tmp_path / "other", labels={"kind": ["B"]})


def test_a_numeric_column_divides_by_numbers(tmp_path: Path) -> None:
    write(tmp_path / "files" / "a.h5ad", donor=[1.0, 2.0, 3.0, 4.0] * 5)
    split = {"by": "donor", "val": [2], "test": ["3"]}
    manifest = make(H5adFolder(str(tmp_path / "files")), tmp_path / "data", split=split)
    assert manifest.n_cells == {"train": 10, "val": 5, "test": 5}


def test_a_file_of_no_genes_is_left_out_beside_others(tmp_path: Path) -> None:
    write(tmp_path / "files" / "a.h5ad")
    empty = ad.AnnData(np.zeros((4, 0), np.float32))
    empty.write_h5ad(tmp_path / "files" / "b.h5ad")
    source = H5adFolder(str(tmp_path / "files"))
    manifest = make(source, tmp_path / "data", max_failed_fraction=0.6)
    assert sum(manifest.n_cells.values()) == 20
    (tmp_path / "files" / "a.h5ad").unlink()
    with pytest.raises((ValueError, CountError), match="genes"):
        make(source, tmp_path / "none")


@pytest.mark.parametrize(
    ("gene_axis", "genes"),
    [
        (None, IDS),
        ("intersection", IDS[10:30]),
        (IDS[35:5:-2], IDS[35:5:-2]),
        ("file", IDS[35:5:-2]),
        (SYMBOLS[12:15], SYMBOLS[12:15]),
    ],
)
def test_the_genes_of_all_archives_are_a_choice_that_no_seed_changes(
    tmp_path: Path, gene_axis: Any, genes: list[str]
) -> None:
    for name, kept in (("a", slice(0, 30)), ("b", slice(10, 40))):
        path = write(tmp_path / "files" / f"{name}.h5ad")
        ad.read_h5ad(path)[:, kept].copy().write_h5ad(path)
    if gene_axis == "file":
        gene_axis = tmp_path / "genes.txt"
        gene_axis.write_text("\n".join(genes))
    source = H5adFolder(str(tmp_path / "files"))
    for seed in (0, 1):
        make(source, tmp_path / str(seed), gene_axis=gene_axis, seed=seed)
        cells = read_shards(tmp_path / str(seed))
        assert cells.gene_ids == genes
        names = SYMBOLS if genes[0].startswith("GENE") else IDS
        whole = counts_of(0, 20)
        for cell_id, row in zip(cells.cell_ids, cells.counts, strict=True):
            expected = whole[int(cell_id.split("_cell")[1])].copy()
            expected[slice(30, 40) if cell_id.startswith("a") else slice(0, 10)] = 0
            assert np.array_equal(row, expected[[names.index(gene) for gene in genes]])


def test_files_by_symbols_and_by_ids_meet_in_one_axis(tmp_path: Path) -> None:
    write(tmp_path / "files" / "a.h5ad")
    path = write(tmp_path / "files" / "b.h5ad")
    cells = ad.read_h5ad(path)
    cells.var = pd.DataFrame(index=SYMBOLS)
    cells.write_h5ad(path)
    make(H5adFolder(str(tmp_path / "files")), tmp_path / "data")
    found = read_shards(tmp_path / "data")
    assert found.gene_ids == sorted(SYMBOLS)
    whole = counts_of(0, 20)[:, [SYMBOLS.index(gene) for gene in found.gene_ids]]
    for cell_id, row in zip(found.cell_ids, found.counts, strict=True):
        assert np.array_equal(row, whole[int(cell_id.split("_cell")[1])])


def test_a_file_without_mitochondrial_genes_is_no_file_whose_cells_all_pass(
    tmp_path: Path,
) -> None:
    write(tmp_path / "files" / "a.h5ad")
    with pytest.raises(DownloadError, match=r"a\.h5ad has no gene of mito_genes='MT-'"):
        make(H5adFolder(tmp_path / "files"), tmp_path / "data", max_mito_pct=5)


def test_experiments_of_the_same_id_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "files" / "a.h5ad", donor=["b.c"] * 20)
    write(tmp_path / "files" / "a.b.h5ad", seed=1, donor=["c"] * 19 + ["x" * 250])
    source = H5adFolder(tmp_path / "files", experiment_key="donor")
    manifest = make(source, tmp_path / "data")
    assert (manifest.n_cells["train"], manifest.n_experiments["train"]) == (40, 3)


def test_cells_of_the_same_id_in_two_experiments_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "files" / "a.h5ad")
    cells = ad.read_h5ad(path)
    cells.obs_names = [f"b_{name}" for name in cells.obs_names]
    cells.write_h5ad(path)
    write(tmp_path / "files" / "a_b.h5ad")
    with pytest.raises(ValueError, match=r"'a' and 'a_b' .*'a_b_cell\d+'.*rename a file"):
        make(H5adFolder(tmp_path / "files"), tmp_path / "data")


def test_links_are_followed_and_broken_ones_named(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "tree").symlink_to(tree)
    (tmp_path / "linked" / "gone.h5ad").symlink_to(tmp_path / "nowhere")
    found = list_catalog(tmp_path / "linked", tmp_path)
    problems = dict(zip(found["experiment_id"], found["problem"], strict=True))
    assert len(problems) == 5
    assert "broken link" in problems["gone"]


@pytest.mark.parametrize(
    "path", ["{}/g[1].h5ad", "{}/.cache", "{}/.cache/c.h5ad", "{}/x/../a.h5ad"]
)
def test_what_is_named_and_there_is_read(tree: Path, path: str) -> None:
    write(tree / "g[1].h5ad")
    assert len(list_catalog([path.format(tree), str(tree / "a.h5ad")], tree)["path"]) == (
        1 if ".." in path else 2
    )


def test_a_pattern_in_a_list_that_finds_nothing_is_an_error(tree: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \*.h5ad file in .*zz\*\.h5ad"):
        list_catalog([str(tree / "a.h5ad"), str(tree / "zz*.h5ad")], tree)


@pytest.mark.parametrize("ends", ["", ".gz"])
@pytest.mark.parametrize("n_columns", [1, 2, 3])
@pytest.mark.parametrize("name", ["features", "genes"])
def test_lists_beside_a_matrix_of_10x_have_many_forms(
    tmp_path: Path, name: str, n_columns: int, ends: str
) -> None:
    opened = gzip.open if ends else open
    folder = tmp_path / "files" / "sample"
    folder.mkdir(parents=True)
    with opened(folder / f"matrix.mtx{ends}", "wb") as file:
        scipy.io.mmwrite(file, sp.coo_matrix(counts_of(2, 20).T.astype(np.int32)))
    symbols = ["same"] * 40
    with opened(folder / f"{name}.tsv{ends}", "wt") as file:
        for gene, symbol in zip(IDS, symbols, strict=True):
            file.write("\t".join([gene, symbol, "Gene Expression"][:n_columns]) + "\n")
    with opened(folder / f"barcodes.tsv{ends}", "wt") as file:
        file.writelines(f"cell{i}\n" for i in range(20))
    make(H5adFolder(tmp_path / "files"), tmp_path / "data")
    cells = read_shards(tmp_path / "data")
    assert cells.gene_ids == IDS
    assert cells.gene_symbols == (symbols if n_columns > 1 else IDS)
    assert cells.counts.sum() == counts_of(2, 20).sum()
    (folder / f"barcodes.tsv{ends}").unlink()
    with pytest.raises(CountError, match=r"has no barcodes\.tsv beside it"):
        make(H5adFolder(tmp_path / "files"), tmp_path / "data", replace=True)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"age": "old"}, r"cell_filters.age='old' does not fit a column of int64"),
        ({"age": {"min": "a"}}, r"the ends of a range are numbers"),
        ({"age": {"min": None}}, r"the ends of a range are numbers"),
    ],
)
def test_a_condition_that_does_not_fit_its_column_is_named(
    tmp_path: Path, filters: dict[str, Any], message: str
) -> None:
    write(tmp_path / "files" / "a.h5ad", age=list(range(20)))
    with pytest.raises(ValueError, match=message):
        make(H5adFolder(tmp_path / "files"), tmp_path / "data", cell_filters=filters)


def test_the_index_of_cells_and_genes_can_be_named_where_it_is_a_column(tmp_path: Path) -> None:
    path = write(tmp_path / "files" / "a.h5ad", bc=[f"cell{i}" for i in range(20)])
    cells = ad.read_h5ad(path)
    cells.obs = cells.obs.set_index("bc", drop=False)
    cells.var["gene_ids"] = IDS
    cells.var = cells.var.set_index("gene_ids", drop=False)
    cells.write_h5ad(path)
    source = H5adFolder(tmp_path / "files", gene_ids="gene_ids")
    make(source, tmp_path / "data", labels=["bc"])
    assert len(list_words(tmp_path / "data", "bc")) == 20


@pytest.mark.parametrize("layout", [sp.csr_matrix, sp.csc_matrix, np.asarray])
def test_of_experiments_that_lie_together_only_their_own_rows_are_read(
    tmp_path: Path, layout: Any
) -> None:
    path = write(tmp_path / "files" / "a.h5ad", n=30, donor=["x"] * 12 + ["y"] * 18)
    cells = ad.read_h5ad(path)
    counts = cells.X.toarray()
    cells.X = layout(counts)
    cells.write_h5ad(path)
    source = H5adFolder(tmp_path / "files", experiment_key="donor")
    make(source, tmp_path / "data")
    found = read_shards(tmp_path / "data")
    for cell_id, row in zip(found.cell_ids, found.counts, strict=True):
        assert np.array_equal(row, counts[int(cell_id.rsplit("_cell", 1)[1])])
    counts[25, 3] = 0.5  # of the other donor
    cells.X = layout(counts)
    cells.write_h5ad(path)
    if layout is sp.csc_matrix:
        return
    manifest = make(source, tmp_path / "data", replace=True, max_failed_fraction=0.7)
    assert manifest.n_cells["train"] == 12


class RangeServer(SimpleHTTPRequestHandler):
    """A web server that gives ranges of its files, as those of real archives do."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None or not path.is_file():
            super().do_GET()
            return
        content = path.read_bytes()
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[first : last + 1])


def test_files_of_a_web_server_are_fetched(tmp_path: Path) -> None:
    for seed, name in enumerate(("a", "b")):
        write(tmp_path / "web" / "deep" / f"{name}.h5ad", seed)
    handler = partial(RangeServer, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/deep"
        make(H5adFolder([f"{url}/a.h5ad", f"{url}/b.h5ad"]), tmp_path / "files")
        make(H5adFolder(f"{url}/"), tmp_path / "folder")
        server.shutdown()
    make(H5adFolder(tmp_path / "web"), tmp_path / "local")
    local = read_shards(tmp_path / "local")
    for name in ("files", "folder"):
        found = read_shards(tmp_path / name)
        assert found.cell_ids == local.cell_ids
        assert np.array_equal(found.counts, local.counts)


@pytest.mark.parametrize(("low", "n"), [(2**63, 10), (0, 20)])
def test_a_filter_on_whole_numbers_of_64_bits(tmp_path: Path, low: int, n: int) -> None:
    numbers = np.array([2**63 + 5, 7] * 10, dtype=np.uint64)
    write(tmp_path / "files" / "a.h5ad", number=numbers)
    manifest = make(
        H5adFolder(tmp_path / "files"), tmp_path / "data", cell_filters={"number": {"min": low}}
    )
    assert manifest.n_cells["train"] == n


def test_a_link_in_place_of_a_converted_file_is_not_taken_for_it(tmp_path: Path) -> None:
    source, work = tmp_path / "cells", tmp_path / "work"
    as_10x_mtx(source, counts_of())
    folder = H5adFolder(source)
    (made,) = Path(folder.open(work).url).glob("*.h5ad")
    content = made.read_bytes()
    made.rename(tmp_path / "away")
    made.symlink_to(tmp_path / "away")
    (tmp_path / "away").write_bytes(b"precious")
    folder.open(work)
    assert not made.is_symlink()
    assert made.read_bytes() == content
    assert (tmp_path / "away").read_bytes() == b"precious"
