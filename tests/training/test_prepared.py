"""A finished directory is opened by itself: no source, no setting said twice."""

import json
import shutil
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import lightning as L
import pytest
import torch

from scdiff_data import (
    ManifestError,
    Pbmc,
    QuantileTokens,
    ScRNADataModule,
    choose_genes_again,
    convert_shards,
)
from scdiff_data.store import Manifest, digest_settings
from scdiff_data.training.prepared import open_manifest
from support.cases import PBMC_SETTINGS, digest_tree
from support.foreign import Seeing
from support.trainers import quiet_trainer

BATCHES = {"batch_size": 32}


def make(folder: Path, **changes: Any) -> ScRNADataModule:
    """The ordinary way."""
    return ScRNADataModule(Pbmc(), folder, **(PBMC_SETTINGS | BATCHES | changes))


def show(module: ScRNADataModule) -> list[str]:
    """The cells of the first training batches."""
    return [cell for _, m in islice(module.train_dataloader(), 3) for cell in m["cell_id"]]


@pytest.mark.parametrize("change", ["as prepared", "converted", "genes chosen again"])
def test_it_serves_what_is_there_as_a_datamodule_that_knows_all_settings_does(
    data_dir: Path, pbmc_dir: Path, change: str
) -> None:
    changes: dict[str, Any] = {}
    if change == "converted":
        convert_shards(data_dir, "compact")
    if change == "genes chosen again":
        changes["genes"] = pbmc_dir / "hvg_info.json"
        choose_genes_again(data_dir, replace=True, **changes)
    before = digest_tree(data_dir)
    opened = ScRNADataModule.from_directory(data_dir, **BATCHES)
    opened.prepare_data()
    opened.setup()
    assert show(opened) == show(make(data_dir, **changes))
    assert (opened.n_genes, opened.categories.keys()) == (64, {"cell_type"})
    assert digest_tree(data_dir) == before
    json.dumps(dict(opened.hparams))  # plain values


@pytest.mark.parametrize("tokenizer", [None, QuantileTokens(n_tokens=5)], ids=["counts", "tokens"])
def test_cells_of_another_run_are_never_served_with_those_that_were_opened(
    data_dir: Path, pbmc_dir: Path, compact_dir: Path, tokenizer: Any
) -> None:
    def replace_data(other: Path) -> None:
        shutil.rmtree(data_dir)
        shutil.copytree(other, data_dir)

    def meanwhile(*arguments: Any, **how: Any) -> Manifest:
        manifest = open_manifest(*arguments, **how)
        replace_data(pbmc_dir)
        return manifest

    module = make(data_dir, predict_split="all", tokenizer=tokenizer)
    module.setup()
    replace_data(compact_dir)
    with pytest.raises(ManifestError, match="was replaced by another run of prepare"):
        module.predict_dataloader()  # which nobody had asked for
    with (
        patch("scdiff_data.training.serving.open_manifest", meanwhile),
        pytest.raises(ManifestError, match="was replaced by another run of prepare"),
    ):
        module.setup()


def test_shards_that_another_run_takes_away_while_they_are_opened_are_no_damage(
    data_dir: Path,
) -> None:
    check = Manifest.check_files

    def meanwhile(manifest: Manifest, *folders: Path, **how: Any) -> None:
        check(manifest, *folders, **how)
        (data_dir / "config.json").unlink(missing_ok=True)
        manifest.shards[1].unlink(missing_ok=True)

    with (
        patch.object(Manifest, "check_files", meanwhile),
        pytest.raises(ManifestError, match="was replaced by another run of prepare"),
    ):
        make(data_dir).setup()


def test_the_shards_and_the_manifest_are_enough_and_only_a_fit_is_written(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "part"
    shutil.copytree(pbmc_dir / "processed", folder / "processed")
    shutil.copy(pbmc_dir / "config.json", folder)
    before = digest_tree(folder)
    opened = ScRNADataModule.from_directory(folder / "processed", tokenizer=QuantileTokens())
    opened.prepare_data()
    (written,) = digest_tree(folder).keys() - before.keys()
    assert written.startswith("tokenizers/QuantileTokens")
    assert len(show(opened)) == 3 * 128


class Save(L.Callback):
    """Saves a checkpoint in mid-epoch."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 20 and not self._path.exists():
            trainer.save_checkpoint(self._path)


def test_a_run_goes_on_exactly_either_way_and_its_checkpoint_opens_the_directory(
    pbmc_dir: Path, tmp_path: Path
) -> None:
    def fit(cells: ScRNADataModule, name: str, **settings: Any) -> list[str]:
        model = Seeing()
        trainer = quiet_trainer(max_epochs=2, callbacks=[Save(tmp_path / name)])
        trainer.fit(model, datamodule=cells, weights_only=True, **settings)
        return model.seen["train"]

    def opened() -> ScRNADataModule:
        return ScRNADataModule.from_directory(pbmc_dir, **BATCHES)

    whole = fit(make(pbmc_dir), "ordinary")
    assert fit(opened(), "opened") == whole
    for cells, name in ((opened(), "ordinary"), (make(pbmc_dir), "opened")):
        assert fit(cells, "again", ckpt_path=tmp_path / name) == whole[20 * 32 :]
    stored = ScRNADataModule.load_from_checkpoint(tmp_path / "opened", weights_only=True)
    assert show(stored) == show(opened())


def test_a_subclass_opens_one_of_its_own_kind(pbmc_dir: Path) -> None:
    class Child(ScRNADataModule):
        def __init__(self, *args: Any, scale: float = 1, **settings: Any) -> None:
            super().__init__(*args, **settings)
            self.scale = scale

    child = Child.from_directory(pbmc_dir, scale=2, **BATCHES)
    assert isinstance(child, Child)
    assert (child.scale, child.n_genes) == (2, 64)


def test_what_the_manifest_says_cannot_be_set_and_nothing_is_planned(pbmc_dir: Path) -> None:
    for wrong in ({"n_hvgs": 64}, {"refresh_catalog": True}, {"replace_data": True}):
        with pytest.raises(ValueError, match=r"cannot be set for a directory that is opened as it"):
            ScRNADataModule.from_directory(pbmc_dir, **wrong)
    with pytest.raises(ValueError, match=r"nothing would be drawn or fetched.*a source"):
        ScRNADataModule.from_directory(pbmc_dir).plan()


def test_a_directory_that_is_not_there_or_damaged_or_changed_is_a_clear_error(
    data_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing; call prepare"):
        ScRNADataModule.from_directory(tmp_path)
    opened = ScRNADataModule.from_directory(data_dir, **BATCHES)
    choose_genes_again(data_dir, n_hvgs=32, replace=True)
    with pytest.raises(ManifestError, match=r"n_hvgs: 32 there, 64 here.*call from_directory ag"):
        opened.prepare_data()
    opened = ScRNADataModule.from_directory(data_dir, **BATCHES)
    (data_dir / "processed" / "batch_0001.h5").unlink()
    with pytest.raises(ManifestError, match=r"batch_0001\.h5 is missing.*prepare again"):
        opened.prepare_data()
    (data_dir / "config.json").write_text("{")
    with pytest.raises(ManifestError, match=r"config\.json is damaged"):
        ScRNADataModule.from_directory(data_dir)


def test_an_older_directory_opens_and_one_of_unknown_settings_is_refused(data_dir: Path) -> None:
    path = data_dir / "config.json"
    content = json.loads(path.read_text("utf-8"))
    later = ("gene_axis", "span", "cell_filters", "max_mito_pct", "mito_genes", "min_cells")
    recipe = {k: v for k, v in content["recipe"].items() if k not in (*later, "shard_format")}
    older = {k: v for k, v in content.items() if "checksum" not in k} | {"recipe": recipe}
    path.write_text(json.dumps(older))
    opened = ScRNADataModule.from_directory(data_dir, **BATCHES)
    assert torch.equal(opened.train_dataset[:].expression, make(data_dir).train_dataset[:][0])
    newer = recipe | {"n_new": 5}
    digest = digest_settings(newer)
    path.write_text(json.dumps(older | {"recipe": newer, "recipe_digest": digest}))
    with pytest.raises(ManifestError, match=r"another version of scdiff_data.*prepare again"):
        ScRNADataModule.from_directory(data_dir)


def test_stages_apart_give_what_one_run_gives(tmp_path: Path, pbmc_dir: Path) -> None:
    with pytest.raises(ValueError, match="stages must be one of all, download, process"):
        make(tmp_path, stages="first")
    begun = make(tmp_path, stages="download", tokenizer=QuantileTokens())
    begun.prepare_data()
    with pytest.raises(FileNotFoundError, match="prepare the rest with stages=process"):
        begun.setup()
    ended = make(tmp_path, stages="process")
    ended.prepare_data()
    ended.setup()
    assert show(ended) == show(make(pbmc_dir))
    assert digest_tree(tmp_path) == digest_tree(pbmc_dir)
