"""The examples are short, run as they are, and show what they say."""

import re
from pathlib import Path

import pytest

from support import forks
from support.cases import ROOT

EXAMPLES = ROOT / "examples"
NUMBER = r"\d\.\d{3}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where they run: the first prepares the cells that the others find."""
    return tmp_path_factory.mktemp("examples")


def run(name: str, *arguments: str, folder: Path) -> str:
    finished = forks.run(EXAMPLES / name, *arguments, cwd=folder)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def numbers(printed: str, pattern: str) -> list[float]:
    found = re.search(pattern.replace("N", f"({NUMBER})"), printed)
    assert found is not None, printed
    return [float(number) for number in found.groups()]


def test_they_are_short_and_listed() -> None:
    page = (ROOT / "docs" / "lightning.md").read_text("utf-8")
    for path in [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.yaml")]:
        assert len(path.read_text("utf-8").splitlines()) < 80, path.name
        assert f"(../examples/{path.name})" in page, path.name


@pytest.mark.parametrize("name", ["classifier.py", "plain_torch.py", "fabric.py"])
def test_types_are_found_more_often_than_by_the_most_frequent_one(folder: Path, name: str) -> None:
    printed = run(name, "cells", folder=folder)
    found, majority = numbers(printed, "test accuracy N, with the most frequent type N")
    assert found > majority + 0.2
    if name != "classifier.py":
        assert "weights as without the stop: True" in printed


def test_the_autoencoder_says_more_of_test_cells_than_the_genes_alone(folder: Path) -> None:
    printed = run("vae.py", "cells", folder=folder)
    vae, alone = numbers(printed, "nats a gene: N, without a latent N")
    assert vae < alone - 0.03


def test_neighbours_in_the_embedding_are_of_one_type(folder: Path) -> None:
    printed = run("embed.py", "cells", folder=folder)
    assert "(700, 16)" in printed
    agreeing, chance = numbers(printed, "for N of the cells, a random one for N")
    assert agreeing > chance + 0.3


def test_the_cli_trains_from_yaml_what_it_prepared_itself(folder: Path) -> None:
    settings = str(EXAMPLES / "lightning_cli.yaml")
    few = ["--trainer.max_epochs", "8"]
    printed = run("lightning_cli.py", "fit", "-c", settings, *few, folder=folder)
    assert numbers(printed, "test accuracy N")[0] > 0.6
    assert "569 train of 7" in printed
    assert (folder / "data" / "examples" / "config.json").exists()
