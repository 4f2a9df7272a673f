"""What is typed, or stands in a file, becomes the arguments of a function."""

from pathlib import Path
from typing import Any

import pytest

from scdiff_data import Census, H5adFolder, Pbmc, Recipe, ScBaseCount
from scdiff_data.command import UsageError, find_command


def read(*words: str) -> dict[str, Any]:
    """The arguments of `plan`."""
    arguments, left = find_command("plan").read(words)
    return arguments.read(left)


def recipe_of(*words: str) -> dict[str, Any]:
    """The settings of the recipe that would be planned."""
    given = read("data/x", *words)
    names = Recipe.__dataclass_fields__.keys() - {"label_words"}
    return Recipe(**{name: given[name] for name in names}).settings()


def test_a_name_starts_from_what_hydra_starts_from() -> None:
    given = recipe_of("--source", "pbmc")
    assert (
        given
        == Recipe(
            source=Pbmc(),
            min_genes=None,
            min_counts=None,
            split={"by": "cell"},
            labels=["cell_type", "n_counts"],
            n_hvgs=192,
            min_cells_pct=5,
        ).settings()
    )
    given = read("data/x", "--source", "scbasecount")
    assert given["source"] == ScBaseCount()
    assert given["max_cells_per_experiment"] == 5000
    assert read("data/x", "--source=census")["source"] == Census()
    # What is typed of a mapping is added to it, as with Hydra.
    given = read("data/x", "--source=scbasecount", "--filters.tissue", "lung")
    assert given["filters"] == {"tech_10x": ["3_prime_gex"], "tissue": "lung"}


def test_a_path_is_ones_own_files() -> None:
    for words in (
        ("--source", "my_files/"),
        ("--source", "h5ad", "--source.path", "my_files/"),
        ("--source=h5ad", "--source.path=my_files/"),
    ):
        given = read("data/x", *words)
        assert given["source"] == H5adFolder("my_files/")
        assert given["split"] == {"by": "cell"}
    assert read("data/x", "--source", "gs://bucket/*.h5ad")["source"].path == "gs://bucket/*.h5ad"


def test_a_class_has_the_settings_of_python() -> None:
    for name in ("Pbmc", "scdiff_data.Pbmc", "scdiff_data.offline.Pbmc"):
        assert recipe_of("--source", name) == Recipe(source=Pbmc()).settings()


def test_a_file_that_is_not_there_is_a_path_all_the_same() -> None:
    assert read("data/x", "--source", "none.h5ad")["source"] == H5adFolder("none.h5ad")


def test_settings_are_typed_as_in_python() -> None:
    given = read(
        *("data/x", "--source=pbmc", "--n-hvgs", "null", "--retry-failed"),
        *("--filters.tissue", "[lung, blood]", "--filters.n_cells", "{min: 1000}"),
        *("--split.by", "donor", "--split.val", "[d1]", "--labels", "{cell_type: [T, B]}"),
        *("--genes", "[CD3E, LYZ]"),
    )
    assert given["n_hvgs"] is None
    assert given["retry_failed"] is True
    assert given["filters"] == {"tissue": ["lung", "blood"], "n_cells": {"min": 1000}}
    assert given["split"] == {"by": "donor", "val": ["d1"]}
    assert given["labels"] == {"cell_type": ["T", "B"]}
    assert given["genes"] == ["CD3E", "LYZ"]
    # A flag before a place takes no value from it.
    assert read("--retry_failed", "data/x", "--source=pbmc")["data_dir"] == "data/x"
    assert read("data/x", "--source=pbmc", "--normalize", "false")["normalize"] is False


@pytest.mark.parametrize(
    "source",
    [
        "source: h5ad\nsource.path: my_files",
        "source: {class_path: scdiff_data.H5adFolder, init_args: {path: my_files}}",
        "source: {_target_: scdiff_data.H5adFolder, path: my_files}",
    ],
    ids=["short", "as LightningCLI", "as Hydra"],
)
def test_a_file_holds_settings_and_what_is_typed_goes_before_them(
    tmp_path: Path, source: str
) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"{source}\nn_hvgs: 77\nflavor: seurat\nfilters: {{tissue: [lung]}}\nsplit: {{by: cell}}\n"
        "labels: [cell_type]\nnormalize: false\nbatch_key: null\ngenes: genes.txt\n"
    )
    config = str(tmp_path / "mine.yaml")
    given = read("data/x", "--n_hvgs", "5", "--config", config)
    assert given["source"] == H5adFolder("my_files")
    assert (given["n_hvgs"], given["flavor"], given["batch_key"]) == (5, "seurat", None)
    assert given["filters"] == {"tissue": ["lung"]}
    assert given["genes"] == "genes.txt"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--source=pbmc", "--n_hvg", "3"], "--n_hvg is no argument: did you mean --n_hvgs?"),
        (["--source=pbmc", "--zzz=3"], "--zzz is no argument; --help lists those there are"),
        (["--source=pbmc", "--output-dir", "x"], "the directory is the first argument"),
        (["--source=pbmc", "--resume"], "--resume is no argument: the same command goes on"),
        (["--source=pbm"], "none of census, .*: did you mean pbmc?"),
        (["--source=pbmc", "--n_hvgs", "many"], "--n_hvgs takes a whole number or null, got many"),
        (["--source=pbmc", "--retry_failed=x"], "--retry_failed takes true or false, got x"),
        (["--source=pbmc", "extra"], "'extra' is one argument too many"),
        (["--source=h5ad"], r"--source.path … is missing"),
        ([], "--source … is missing"),
        (["--source.path", "x"], "--source … is missing, whose settings these are"),
        (["--source=pbmc", "--source.path=x"], "--source.path is no argument"),
        (["--config", "none.yaml"], "--config=none.yaml cannot be read"),
        (["--source=mine.py"], "is no path that there is"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_line(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?").replace("(", r"\(")) as caught:
        read("data/x", *words)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_settings_is_told(tmp_path: Path) -> None:
    for content, said in (("[1, 2]", "holds no names and values"), ("a: [", "is no YAML")):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(UsageError, match=said):
            read("data/x", "--config", str(tmp_path / "bad.yaml"))
    (tmp_path / "bad.yaml").write_text("source: pbmc\nn_hvg: 3")
    with pytest.raises(UsageError, match="did you mean --n_hvgs"):
        read("data/x", "--config", str(tmp_path / "bad.yaml"))
    with pytest.raises(UsageError, match="DATA_DIR is missing"):
        read("--source=pbmc")
