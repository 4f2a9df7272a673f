"""`scdiff-data hvg`: genes chosen again, from the archive alone; `convert`: the other format."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from scdiff_data import H5adFolder, HVGDataset, Recipe, prepare
from scdiff_data.cli import main
from support import forks
from support.cases import ATLAS, digest_tree, pbmc_recipe


@pytest.fixture
def data_dir(data_dir: Path) -> Path:
    """Without its source."""
    shutil.rmtree(data_dir / "source")
    return data_dir


def test_other_genes_are_those_that_preparing_with_them_gives(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--n-hvgs", "30", "--min-cells-pct", "5", "--flavor", "seurat", "--force"]
    assert main(["hvg", str(data_dir), *arguments]) == 0
    assert "30 of 765 genes, 700 cells in 3 shards" in capsys.readouterr().out
    recipe = pbmc_recipe(n_hvgs=30, min_cells_pct=5.0, flavor="seurat")
    prepare(recipe, tmp_path / "anew")
    found, wanted = digest_tree(data_dir), digest_tree(tmp_path / "anew")
    assert found == {k: v for k, v in wanted.items() if not k.startswith("source/")}
    (data_dir / "config.json").chmod(0o444)
    # The DataModule finds it finished: nothing of the source is asked for.
    assert prepare(recipe, data_dir).genes.n_chosen == 30
    assert not (data_dir / "source").exists()


def test_nothing_is_replaced_without_force(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = digest_tree(data_dir)
    assert main(["hvg", str(data_dir), "--n-hvgs", "30"]) == 1
    assert (
        "holds genes chosen with n_hvgs=64: replace=True (--replace) replaces them"
        in capsys.readouterr().err
    )
    assert main(["hvg", str(data_dir), "--n-hvgs", "64"]) == 0
    assert digest_tree(data_dir) == before


def test_other_settings_read_no_cells_again(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("cells were read")

    monkeypatch.setattr("scdiff_data.genes.statistics.sum_genes", refuse)
    monkeypatch.setattr("scdiff_data.genes.statistics.count_above", refuse)
    for flavor in ("seurat", "cell_ranger", "dispersion"):
        assert (
            main(["hvg", str(data_dir), "--flavor", flavor, "--min-cells-pct", "3", "--force"]) == 0
        )


def test_given_genes_and_all_genes(data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "genes.txt").write_text("LYZ\nCD79A\n")
    assert main(["hvg", str(data_dir), "--genes", str(tmp_path / "genes.txt"), "--force"]) == 0
    assert HVGDataset(data_dir).gene_ids == ["LYZ", "CD79A"]
    assert main(["hvg", str(data_dir), "--n-hvgs", "null", "--force"]) == 0
    assert len(HVGDataset(data_dir).gene_ids) == 765
    info = json.loads((data_dir / "hvg_info.json").read_text())
    assert info["flavor"] == "all"


def test_an_unprepared_or_damaged_directory_says_what_to_do(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hvg", str(tmp_path / "none")]) == 1
    assert "is no directory: name one that was prepared" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["hvg", str(tmp_path / "empty"), "--force"]) == 1
    assert "config.json is missing; call prepare(recipe, data_dir)" in capsys.readouterr().err
    (data_dir / "cells" / "PBMC03.h5ad").write_bytes(b"short")
    assert main(["hvg", str(data_dir), "--n-hvgs", "9", "--force"]) == 1
    assert "PBMC03.h5ad has 5 bytes, config.json says" in capsys.readouterr().err
    assert (data_dir / "config.json").exists()


KILL_SCRIPT = """
import os, signal, sys
from scdiff_data import cli
from scdiff_data.pipeline import assemble

assemble.{stage} = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
cli.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def few_genes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared with 20 genes from the start."""
    path = tmp_path_factory.mktemp("few")
    prepare(pbmc_recipe(n_hvgs=20), path)
    return path


@pytest.mark.parametrize("stage", ["choose_genes", "write_shards"])
def test_killed_the_same_command_goes_on(
    data_dir: Path, tmp_path: Path, few_genes_dir: Path, stage: str
) -> None:
    arguments = ["hvg", str(data_dir), "--n-hvgs", "20", "--force"]
    script = KILL_SCRIPT.format(stage=stage)
    killed = forks.run(script, *arguments, cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    assert not (data_dir / "config.json").exists()
    assert main(arguments) == 0
    found, wanted = digest_tree(data_dir), digest_tree(few_genes_dir)
    assert found == {k: v for k, v in wanted.items() if not k.startswith("source/")}


def test_preparing_anew_goes_before_a_command_that_was_cut_off(
    data_dir: Path, tmp_path: Path
) -> None:
    (data_dir / "config.json").rename(data_dir / "metadata" / "replaced.json")
    prepare(pbmc_recipe(), data_dir)
    assert not (data_dir / "metadata" / "replaced.json").exists()
    assert main(["hvg", str(data_dir)]) == 0


def test_experiments_that_the_draw_cut_or_skipped_are_as_they_were(tmp_path: Path) -> None:
    recipe = Recipe(
        source=ATLAS, cell_count=150, min_genes=20, n_hvgs=50, split={"by": "cell"}, labels=()
    )
    prepare(recipe, tmp_path)
    before = {k: v for k, v in digest_tree(tmp_path).items() if not k.startswith("source/")}
    assert main(["hvg", str(tmp_path), "--n-hvgs", "20", "--force"]) == 0
    assert main(["hvg", str(tmp_path), "--n-hvgs", "50", "--force"]) == 0
    after = {k: v for k, v in digest_tree(tmp_path).items() if not k.startswith("source/")}
    assert after == before


def test_files_that_were_read_in_their_own_way_get_other_genes_too(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    counts = np.random.default_rng(0).poisson(1.0, (60, 30)).astype(np.float32)
    cells = ad.AnnData(np.log1p(counts), layers={"umi": counts})
    cells.var_names = [f"gene{gene}" for gene in range(30)]
    cells.obs["donor"] = [f"donor{cell % 3}" for cell in range(60)]
    cells.write_h5ad(tmp_path / "files" / "a.h5ad")
    source = H5adFolder(tmp_path / "files", counts="layers/umi", experiment_key="donor")
    settings = {"min_genes": None, "min_counts": None, "labels": (), "split": {"by": "cell"}}
    prepare(Recipe(source=source, n_hvgs=20, **settings), tmp_path / "data")
    shutil.rmtree(tmp_path / "files")
    assert main(["hvg", str(tmp_path / "data"), "--n_hvgs", "10", "--replace"]) == 0
    assert len(HVGDataset(tmp_path / "data").gene_ids) == 10


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("scdiff-data")
    output = subprocess.run([command, "hvg", "--help"], capture_output=True, text=True, check=True)
    assert "0.1 is 0.1 percent" in " ".join(output.stdout.split())


def test_shards_are_converted_there_and_back(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = HVGDataset(data_dir)[:].expression
    for shard_format in ("compact", "dense"):
        assert main(["convert", str(data_dir), shard_format]) == 0
        assert f"3 {shard_format} shards" in capsys.readouterr().out
        assert (HVGDataset(data_dir)[:].expression == counts).all()
    assert main(["convert", str(data_dir), "sparse"]) == 1
    assert "must be dense or compact, got 'sparse'" in capsys.readouterr().err


def test_generate_writes_the_cells_that_the_model_makes(
    trained: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, _, _ = trained
    model.trainer.save_checkpoint(tmp_path / "last.ckpt")
    command = ["generate", str(tmp_path / "last.ckpt"), "--output", str(tmp_path / "cells.h5ad")]
    how = ["--n_cells", "20", "--total_counts", "30", "--steps", "4", "--seed", "3"]
    assert main([*command, *how, "--labels.half", "low"]) == 0
    assert capsys.readouterr().out.startswith("20 cells of 24 genes: ")
    found = ad.read_h5ad(tmp_path / "cells.h5ad")
    wanted = model.generate(20, total_counts=30, steps=4, seed=3, labels={"half": "low"})
    assert (found.X != wanted.X).nnz == 0
    assert found.obs.equals(wanted.obs)
    assert main(["info", str(tmp_path / "last.ckpt"), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert json.loads(found.uns["model_card"]) == card == model.card
    assert main(["info", str(tmp_path / "last.ckpt")]) == 0
    assert "MaskedDiffusion of" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "last.ckpt"), "--png", "card.png"]) == 1
    assert "only what a directory holds is drawn" in capsys.readouterr().err
    before = sorted(tmp_path.iterdir())
    for words, code, said in (
        (["--n_cells", "0"], 1, "n_cells must be at least 1, got 0"),
        (["--n_cells", "2", "--labels.half", "mid"], 1, "it knows"),
        (["--n_cells", "2", "--sampler", "x"], 2, "--sampler takes"),
        (["--steps", "2"], 2, "--n_cells … is missing"),
        (["--n_cells", "2", "--steps", "0"], 1, "scdiff-data: steps must be at least 1, got 0"),
        (["--n_cells", "2", "--output", "cells.csv"], 1, "written as h5ad"),
    ):
        assert main([*command, *words]) == code
        assert said in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
    other = str(tmp_path / "cells.h5ad")
    for path, said in ((str(tmp_path), "name a checkpoint"), (other, "tensors and plain values")):
        assert main(["generate", path, "--n_cells", "2", "--output", other]) == 1
        assert said in capsys.readouterr().err
