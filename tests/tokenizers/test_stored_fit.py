"""A tokenizer's fit is made once, kept, and never used on other data."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch

from scdiff_data import (
    BinTokens,
    CountTokens,
    LogBinTokens,
    Manifest,
    Pbmc,
    QuantileTokens,
    RankTokens,
    ScRNADataModule,
)
from scdiff_data.tokenizers import stored_fit
from scdiff_data.training.token_batches import open_fit_data
from support.cases import PBMC_SETTINGS
from support.foreign import Foreign, trainer

TOKENIZERS = [LogBinTokens, CountTokens, QuantileTokens, RankTokens]


def open_data(data_dir: Path, tokenizer: Any, **changes: Any) -> ScRNADataModule:
    settings = PBMC_SETTINGS | {"batch_size": 32} | changes
    datamodule = ScRNADataModule(Pbmc(), data_dir, **settings, tokenizer=tokenizer)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def same_state(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_later_run_takes_the_fit_that_an_earlier_one_kept(
    data_dir: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = kind()
    open_data(data_dir, first)
    (kept,) = (data_dir / "tokenizers").iterdir()
    assert kept.name.startswith(kind.__name__)
    before = kept.stat().st_mtime_ns

    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(kind, "fit", refuse)
    second = kind()
    open_data(data_dir, second)
    assert same_state(first, second)
    assert kept.stat().st_mtime_ns == before


def test_of_runs_that_start_together_one_fits_and_the_others_take_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, fit, tokenizers = open_fit_data(Manifest.read(data_dir)), LogBinTokens.fit, []

    def fit_slowly(tokenizer: LogBinTokens, *counts: Any) -> None:
        tokenizers.append(tokenizer)
        time.sleep(0.1)
        fit(tokenizer, *counts)

    monkeypatch.setattr(LogBinTokens, "fit", fit_slowly)
    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda _: stored_fit.store_fit(LogBinTokens(), data), range(4)))
    assert len(tokenizers) == 1
    assert [path.suffix for path in (data_dir / "tokenizers").iterdir()] == [".pt"]


def test_other_settings_have_a_fit_of_their_own(data_dir: Path) -> None:
    for tokenizer in (LogBinTokens(8), LogBinTokens(12), QuantileTokens(8)):
        open_data(data_dir, tokenizer)
    assert len(list((data_dir / "tokenizers").iterdir())) == 3


@pytest.mark.parametrize("damage", ["other data", "truncated"])
def test_a_fit_of_other_data_or_a_damaged_one_is_made_again(data_dir: Path, damage: str) -> None:
    right = QuantileTokens()
    open_data(data_dir, right)
    (kept,) = (data_dir / "tokenizers").iterdir()
    if damage == "truncated":
        kept.write_bytes(kept.read_bytes()[:100])
    else:
        torch.save(torch.load(kept, weights_only=True) | {"data": "another"}, kept)
    again = QuantileTokens()
    open_data(data_dir, again)
    assert same_state(right, again)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (QuantileTokens, {"edges": torch.tensor([0, 5, 3])}),
        (QuantileTokens, {"edges": torch.arange(100)}),
        (LogBinTokens, {"lookup": torch.full((32_768,), 99)}),
        (LogBinTokens, {"count_log_prob": torch.full((2,), torch.nan)}),
        (LogBinTokens, {"tail_log_ratio": torch.tensor(torch.nan)}),
        (RankTokens, {"gene_scale": torch.ones(7)}),
        (RankTokens, {"gene_scale": -torch.ones(64)}),
        (RankTokens, {"gene_scale": torch.ones(1, 64)}),
        (RankTokens, {"scale": torch.ones(64)}),
    ],
)
def test_a_fit_that_cannot_be_is_made_again_whatever_its_checksum(
    data_dir: Path, kind: Any, change: dict[str, torch.Tensor]
) -> None:
    right, again = kind(), kind()
    open_data(data_dir, right)
    (kept,) = (data_dir / "tokenizers").iterdir()
    content = torch.load(kept, weights_only=True)
    state = {**content["state"], **change} if "scale" not in change else change
    torch.save(content | {"state": state, "checksum": stored_fit._checksum(state)}, kept)
    open_data(data_dir, again)
    assert same_state(right, again)


def test_a_tokenizer_fitted_elsewhere_before_is_fitted_to_these_data(data_dir: Path) -> None:
    used, fresh = BinTokens([0, 1, 3]), BinTokens([0, 1, 3])
    used.fit(np.full((10, 4), 7, np.int16), np.full(10, 28))
    open_data(data_dir, fresh)
    shutil.rmtree(data_dir / "tokenizers")
    open_data(data_dir, used)
    assert same_state(used, fresh)


def test_setup_writes_nothing_and_fits_where_nothing_is_kept(data_dir: Path) -> None:
    settings = PBMC_SETTINGS | {"batch_size": 32}
    tokenizer = QuantileTokens()
    ScRNADataModule(Pbmc(), data_dir, **settings, tokenizer=tokenizer).setup("fit")
    assert not (data_dir / "tokenizers").exists()
    assert tokenizer.n_tokens > 2


def fit(data_dir: Path, tokenizer: Any, ckpt_path: Path | None = None, **changes: Any) -> L.Trainer:
    settings = PBMC_SETTINGS | {"batch_size": 32} | changes
    datamodule = ScRNADataModule(Pbmc(), data_dir, **settings, tokenizer=tokenizer)
    run = trainer(data_dir.parent, max_epochs=2, limit_train_batches=2)
    run.fit(Foreign(), datamodule=datamodule, ckpt_path=ckpt_path)
    return run


def test_a_plain_modules_checkpoint_holds_the_fit_and_gives_it_back(data_dir: Path) -> None:
    tokenizer = QuantileTokens()
    fit(data_dir, tokenizer).save_checkpoint(data_dir.parent / "run.ckpt")
    stored = torch.load(data_dir.parent / "run.ckpt", weights_only=True)["ScRNADataModule"]
    assert torch.equal(stored["state"]["edges"], tokenizer.edges)
    stored["state"]["count_log_prob"] -= 1  # to see that it is the checkpoint's that is taken
    content = torch.load(data_dir.parent / "run.ckpt", weights_only=True)
    torch.save(content | {"ScRNADataModule": stored}, data_dir.parent / "run.ckpt")
    resumed = QuantileTokens()
    fit(data_dir, resumed, data_dir.parent / "run.ckpt")
    torch.testing.assert_close(resumed.count_log_prob, tokenizer.count_log_prob - 1)


@pytest.mark.parametrize(
    ("tokenizer", "changes", "message"),
    [
        (LogBinTokens(8), {}, r"stand for other counts: its bins start at .*those here at"),
        (CountTokens(), {}, r"trained with tokenizer LogBinTokens, not CountTokens"),
        (None, {}, r"trained with tokenizer LogBinTokens, not None"),
        (LogBinTokens(), {"n_hvgs": 32}, r"trained on other genes than .*model=pretrained"),
    ],
    ids=["bins", "kind", "none", "genes"],
)
def test_a_checkpoint_of_other_tokens_or_genes_is_refused(
    data_dir: Path, tokenizer: Any, changes: dict[str, Any], message: str
) -> None:
    fit(data_dir, LogBinTokens()).save_checkpoint(data_dir.parent / "run.ckpt")
    with pytest.raises(ValueError, match=message):
        fit(data_dir, tokenizer, data_dir.parent / "run.ckpt", **changes)


def test_a_fit_with_a_changed_number_is_made_again(data_dir: Path) -> None:
    whole, found = LogBinTokens(), LogBinTokens()
    open_data(data_dir, whole)
    (path,) = (data_dir / "tokenizers").glob("*.pt")
    content = bytearray(path.read_bytes())
    place = content.find(whole.lookup.numpy()[:9].tobytes())
    content[place + 8] = 9
    path.write_bytes(content)
    open_data(data_dir, found)
    assert same_state(found, whole)
