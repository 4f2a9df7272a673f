"""The wheel is the whole product: it works where there is no repository."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.cases import ROOT
from support.pages import blocks

SHIPPED = ("scdiff_data", "configs", "train.py", "evaluate.py")
ABOUT = ("pyproject.toml", "README.md", "LICENSE")


class Installation:
    """The wheel, installed beside the libraries, and a folder to work in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self._site = folder / "site"
        source = folder / "source"
        source.mkdir()
        for name in (*SHIPPED, *ABOUT):  # a copy: building leaves files
            subprocess.run(["cp", "-r", ROOT / name, source], check=True)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
        subprocess.run([*pip, *build], check=True)
        (wheel,) = folder.glob("*.whl")
        subprocess.run([*pip, "install", "--no-deps", "--target", self._site, wheel], check=True)

    def run(self, *arguments: str) -> str:
        """Run Python there; gives what it printed."""
        finished = subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self._site)},
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def command(self, *arguments: str) -> str:
        """Run `scdiff-data` there."""
        return self.run("-m", "scdiff_data.cli", *arguments)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation(tmp_path_factory.mktemp("wheel"))


def test_readmes_python_and_that_of_dropping_in_run_as_written(installed: Installation) -> None:
    page = (ROOT / "docs" / "howto" / "drop_in.md").read_text("utf-8")
    script = "\n".join([*blocks("python"), *blocks("python", page)])
    assert script.count("ScRNADataModule(") == 2
    printed = installed.run("-c", f"{script}\nprint(create_dataloader.__code__.co_filename)")
    assert "torch.Size([32, 100]) torch.int16" in printed
    assert "{'train': " in printed
    assert printed.splitlines()[-1].startswith(str(installed.folder.parent))


def test_the_command_trains_scores_and_chooses_genes(installed: Installation) -> None:
    (installed.folder / "own" / "experiment").mkdir(parents=True)
    own = "# @package _global_\ndata: {n_hvgs: 96}\n"
    (installed.folder / "own" / "experiment" / "few.yaml").write_text(own)
    trained = installed.command(
        *("train", "--config-dir", "own", "experiment=few", "trainer.max_epochs=1", "run_dir=run")
    )
    assert trained.splitlines()[-1] == "run"
    scored = installed.command(
        *("evaluate", "ckpt_path=run/checkpoints/last.ckpt", "data.n_hvgs=96"),
        *("n_cells=20", "steps=2"),
    )
    assert "counts, nats a gene" in scored
    chosen = installed.command("hvg", "data/pbmc", "--n-hvgs", "50", "--force")
    assert chosen.startswith("50 of 765 genes, 700 cells in 1 shards")


def test_the_version_is_that_of_the_wheel(installed: Installation) -> None:
    said = installed.run("-c", "import scdiff_data; print(scdiff_data.__version__)")
    assert list(installed.folder.parent.glob(f"scdiff_data-{said.strip()}-*.whl"))
