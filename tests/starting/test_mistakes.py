"""A user's mistake is one short message; a fault of ours keeps its traceback."""

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import hydra
import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import OmegaConf

from scdiff_data import ManifestError, ScRNADataModule
from scdiff_data.starting import describe_mistake, explain_mistakes, open_settings, run_main
from support.configs import compose


def mistake(job: Callable[[], object]) -> str | None:
    """What is told of what a job raises."""
    try:
        job()
    except Exception as error:  # noqa: BLE001 - any
        return describe_mistake(error)
    finally:
        GlobalHydra.instance().clear()
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.n_hvg=128", "data.n_hvg is no setting: did you mean data.n_hvgs?"),
        ("n_hvgs=128", "n_hvgs is no setting: did you mean data.n_hvgs?"),
        ("trainer.max_epoch=3", "did you mean trainer.max_epochs or trainer.min_epochs"),
        ("trainer.learning_rate=3", "did you mean model.learning_rate?"),
        ("tokenizer=count", "did you mean data/tokenizer?"),
        ("logger.offline=true", "logger has flush_logs_every_n_steps, name,"),
        ("data.n_hvgs.x=1", "data.n_hvgs has no keys"),
        ("data=pbcm", "data=pbcm is no choice: did you mean pbmc? There are census,"),
        ("experiment=none_such", "experiment=none_such is no choice: There are simulated_small"),
        ("logger=false", "takes a name; trainer.logger=false logs nothing"),
        ("more_cells", "more_cells is no setting: give KEY=VALUE"),
        ("data.filters={tissue:", "quote what holds blanks, braces or brackets"),
        ('data.filters={"tissue": [lung]}', "keys in braces stand without quotes"),
    ],
)
def test_a_setting_that_cannot_be_names_what_can(
    tmp_path: Path, override: str, message: str
) -> None:
    told = mistake(lambda: compose(tmp_path, override))
    assert told is not None
    assert message in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.cell_count=-3"], "data: cell_count must be a whole number of at least 1, got -3"),
        (["+data.n_hvg=3"], "data.n_hvg is no setting: near are n_hvgs"),
        (["data=h5ad"], "data.source.path has no value: add data.source.path=… to the command"),
        (["data.tokenizer.ratio=0.5"], "data.tokenizer: ratio must be above 1, got 0.5"),
    ],
)
def test_a_value_that_cannot_be_is_told_with_its_key(
    tmp_path: Path, overrides: list[str], message: str
) -> None:
    told = mistake(lambda: instantiate(compose(tmp_path, *overrides).data))
    assert told is not None
    assert told.startswith(message)


def break_numpy() -> NoReturn:
    np.zeros(3).reshape(2, 2)
    raise AssertionError


def refuse() -> NoReturn:
    raise ManifestError("the data are of other settings: prepare again")


def test_faults_of_ours_are_not_taken_for_the_users() -> None:
    assert mistake(break_numpy) is None
    assert mistake(lambda: None.nothing) is None  # type: ignore[attr-defined]
    assert mistake(refuse) == "the data are of other settings: prepare again"
    assert mistake(lambda: Path("none/such").read_text()) is not None


@pytest.fixture
def not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")


@pytest.mark.usefixtures("not_asked")
def test_a_mistake_ends_the_process_and_a_fault_goes_on() -> None:
    def job(fail: Callable[[], None]) -> Callable[[], None]:
        def main() -> None:
            with explain_mistakes():
                assert os.environ.get("HYDRA_FULL_ERROR") != "1"  # further ranks would inherit it
                fail()

        return main

    with pytest.raises(SystemExit, match="error: the data are of other settings"):
        run_main(job(refuse))
    with pytest.raises(ValueError, match="cannot reshape"):
        run_main(job(break_numpy))
    with pytest.raises(SystemExit, match="error: the data are"):  # before the job begins
        run_main(refuse)


@pytest.mark.usefixtures("not_asked")
def test_what_ended_a_run_is_in_its_log_too(tmp_path: Path) -> None:
    handler = logging.FileHandler(tmp_path / "train.log")
    logging.root.addHandler(handler)
    try:
        with pytest.raises(SystemExit):
            run_main(refuse)
    finally:
        logging.root.removeHandler(handler)
        handler.close()
    assert "the data are of other settings: prepare again" in (tmp_path / "train.log").read_text()


@pytest.mark.parametrize("flag", ["--batch-size", "--batch-size=3", "--n_hvgs"])
@pytest.mark.usefixtures("not_asked")
def test_a_setting_with_dashes_is_told_how_it_is_given(
    monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", flag, "3"])
    name = flag.removeprefix("--").partition("=")[0].replace("-", "_")
    with pytest.raises(SystemExit, match=f"is no option: .* as in data.{name}=… or"):
        run_main(refuse)
    monkeypatch.setattr(sys, "argv", ["train.py", "--cfg", "job", "--hydra-help"])
    with pytest.raises(SystemExit, match="the data are of other settings"):
        run_main(refuse)


@pytest.mark.usefixtures("not_asked")
def test_who_asks_for_the_traceback_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ManifestError):
        run_main(refuse)


def test_columns_are_named_as_they_come(tmp_path: Path) -> None:
    typed = ["data=scbasecount", "data.filters={tissue: [lung]}", "data.exclude.disease=[cancer]"]
    typed += ["data.filters.n_cells={min: 1000}", "data.source.storage_options.token=anon"]
    data = OmegaConf.to_container(compose(tmp_path, *typed).data)
    assert isinstance(data, dict)
    wanted = {"tech_10x": ["3_prime_gex"], "tissue": ["lung"], "n_cells": {"min": 1000}}
    assert data["filters"] == wanted
    assert data["exclude"] == {"disease": ["cancer"]}
    assert isinstance(instantiate(compose(tmp_path, *typed).data), ScRNADataModule)
    assert open_settings(["~data.filters.tech_10x", "data.n_hvgs=3"]) == [
        "~data.filters.tech_10x",
        "data.n_hvgs=3",
    ]
    assert hydra.__version__.startswith("1.3")  # whose grammar this follows
