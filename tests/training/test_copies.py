"""A DataModule trains from a bucket on the cells that it would train on from a directory."""

from pathlib import Path

import pytest
import torch

from scdiff_data import Bucket, Pbmc, ScRNADataModule
from scdiff_data.tokenizers import QuantileTokens
from support.buckets import SMALL_SHARDS, count_shards, send_small_shards
from support.foreign import Seeing
from support.trainers import quiet_trainer


class Away(Pbmc):
    """A source that cannot be reached."""

    def open(self, workdir: Path) -> Bucket:
        raise OSError("no network")


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sent")
    send_small_shards(folder)
    return folder


def test_training_validation_and_a_resume_in_mid_epoch_are_the_same(
    sent: Path, tmp_path: Path
) -> None:
    serving = {"batch_size": 16, "window_size": 150, "run_size": 50}
    bucket = {"processed_url": str(sent / "bucket"), "local_limit": 100_000}
    seen = []
    for folder, more in ((sent / "own", {}), (tmp_path / "copy", bucket)):
        model = Seeing()
        for steps, ckpt_path in ((20, None), (50, tmp_path / "last.ckpt")):
            cells = ScRNADataModule(Away(), folder, **SMALL_SHARDS, **serving, **more)
            trainer = quiet_trainer(max_steps=steps, default_root_dir=tmp_path)
            trainer.fit(model, datamodule=cells, ckpt_path=ckpt_path)
            trainer.save_checkpoint(tmp_path / "last.ckpt")
        seen.append(model.seen)
    assert seen[0] == seen[1]
    assert len(seen[0]["train"]) == 50 * 16
    assert count_shards(tmp_path / "copy") < 14


def test_a_bucket_is_opened_as_it_is_without_a_source(sent: Path, tmp_path: Path) -> None:
    url, tokenizers = str(sent / "bucket"), [QuantileTokens(8), QuantileTokens(8)]
    here = ScRNADataModule.from_directory(tmp_path, processed_url=url, tokenizer=tokenizers[0])
    there = ScRNADataModule.from_directory(sent / "own", tokenizer=tokenizers[1])
    for cells in (here, there):
        cells.prepare_data()
        cells.setup()
    assert torch.equal(tokenizers[0].edges, tokenizers[1].edges)
    again = ScRNADataModule.from_directory(tmp_path)
    again.setup("test")
    assert repr(again.test_dataset).startswith("HVGDataset(66 test cells")
