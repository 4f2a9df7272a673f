"""The system learns what there is to learn, resumes exactly, and is whole in its checkpoint."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor

from scdiff_data import CountTokens, LogBinTokens, Pbmc, QuantileTokens, ScRNADataModule
from scdiff_data.callbacks import WeightEMA
from scdiff_data.diffusion import MaskedDiffusion
from scdiff_data.diffusion.panel import map_codes
from scdiff_data.diffusion.process import draw_hidden, keyed_generator
from scdiff_data.loading.batches import TokenBatch
from scdiff_data.measuring.metrics import shuffle_genes
from scdiff_data.tokenizers.ranks import RankTokens
from support.cases import PBMC_SETTINGS
from support.toys import StandIn


def test_step_0_equals_the_marginal_baseline(
    mixture: Any, make_data: Any, small_model: Any, validate: Any
) -> None:
    scores = validate(small_model(), make_data(mixture.sample(300, seed=1), n_val=100))
    assert scores["val/loss"] == pytest.approx(scores["val/marginal"], abs=1e-6)


def test_training_closes_at_least_40_percent_of_the_gap_to_the_exact_nll(
    mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data = make_data(mixture.sample(1256, seed=1), n_val=256)
    # Here depth is the sum of all genes: knowing it, a model may well beat the exact p(cell).
    data.train_dataset.total_counts[:] = data.val_dataset.total_counts[:] = 100
    trainer = make_trainer(max_epochs=10)
    trainer.fit(small_model(d_model=32), datamodule=data)
    scores = {name: float(score) for name, score in trainer.callback_metrics.items()}
    exact = float(mixture.nll(torch.from_numpy(data.val_dataset.counts).long()).mean())
    assert scores["val/marginal"] - scores["val/loss"] > 0.4 * (scores["val/marginal"] - exact)
    assert scores["val/loss"] > exact - 3 * scores["val/loss_se"]


def test_independent_genes_give_no_gain(
    make_data: Any, make_trainer: Any, small_model: Any, validate: Any
) -> None:
    generator = torch.Generator().manual_seed(0)
    p_gv = torch.randn(24, 4, generator=generator).softmax(-1)
    tokens = p_gv.multinomial(600, replacement=True, generator=generator).T.contiguous()
    data = make_data(tokens, n_val=200)
    # Depth is the sum of independent genes, so it does say a little: it is withheld.
    data.train_dataset.total_counts[:] = data.val_dataset.total_counts[:] = 100
    model = small_model()
    make_trainer(max_epochs=3).fit(model, datamodule=data)
    scores = validate(model, data)
    assert scores["val/marginal"] - scores["val/loss"] < 0.003


def test_what_is_hidden_of_a_gene_moves_no_logit(trained: Any) -> None:
    model, data, _ = trained
    tokens, metadata = next(iter(data.val_dataloader()))
    k = torch.arange(1, len(tokens) + 1).clamp(max=48)
    hidden = draw_hidden(k, n_genes=24, generator=keyed_generator(0))
    level = torch.where(tokens > 0, tokens % 3 + 1, 0)  # another, as much expressed or not
    other = tokens.where(hidden == 0, level.where(hidden == 1, (tokens + 1) % 4))
    assert all((other != tokens)[(hidden == n) & (tokens > 0)].all() for n in (1, 2))
    model.eval()
    first, second = (model.logits(TokenBatch(t, metadata), hidden) for t in (tokens, other))
    assert torch.equal(first, second)


def test_reordering_the_validation_set_leaves_the_nll(trained: Any, validate: Any) -> None:
    model, data, _ = trained
    before = validate(model, data)
    data.val_order = np.random.default_rng(0).permutation(data.val_order)
    data.batch_size, old = 50, data.batch_size  # and so does another batch size, the last uneven
    after = validate(model, data)
    data.val_order, data.batch_size = np.sort(data.val_order), old
    assert after == pytest.approx(before, rel=1e-5)


def test_validation_scores_are_means_over_cells_with_their_standard_error(
    trained: Any, validate: Any
) -> None:
    model, data, _ = trained
    sizes = []
    for size in (256, 100):  # one batch, and three uneven ones
        data.batch_size, old = size, data.batch_size
        sizes.append(validate(model, data))
        data.batch_size = old
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)
    assert 0 < sizes[0]["val/loss_se"] < 0.1
    # Tokens are counts here, so but for the open bin's tail the two likelihoods agree.
    assert sizes[0]["val/count_nll"] == pytest.approx(sizes[0]["val/loss"], abs=0.2)
    assert sizes[0]["val/count_nll"] >= sizes[0]["val/loss"]


def test_test_scores_are_made_as_validation_scores(
    trained: Any, make_trainer: Any, validate: Any
) -> None:
    model, data, _ = trained
    scores = make_trainer().test(model, datamodule=data, verbose=False)[0]
    expected = {name.replace("val/", "test/"): v for name, v in validate(model, data).items()}
    assert scores == pytest.approx(expected)


def test_a_checkpoint_loads_and_generates_with_no_datamodule(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data = make_data(mixture.sample(200, seed=1), n_val=50)
    model = small_model(labels=("half",))
    trainer = make_trainer(max_epochs=1, enable_checkpointing=True, default_root_dir=tmp_path)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = MaskedDiffusion.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    cells = loaded.generate(10, steps=4)
    assert (cells.X != model.generate(10, steps=4).X).nnz == 0
    assert list(cells.var_names) == data.gene_ids
    # One of a version that told a gene in one look had other masks, a later one other weights.
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    for name, theirs, own in (("n_looks", 1, 2), ("has_label_biases", False, True)):
        torch.save({k: v for k, v in checkpoint.items() if k != name}, tmp_path / "old.ckpt")
        said = rf"model has {name}={theirs}, this one {own}: .* train a new model"
        with pytest.raises(ValueError, match=said):
            MaskedDiffusion.load_from_checkpoint(tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match=r"model has labels=\['half'\], this one \[\]: give the"):
        make_trainer(max_epochs=1).fit(
            small_model(), datamodule=data, ckpt_path=tmp_path / "last.ckpt"
        )


def test_a_resumed_run_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data = make_data(mixture.sample(178, seed=1), n_val=50)

    class SaveHalfway(Callback):
        def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch == 1:
                trainer.save_checkpoint(tmp_path / "halfway.ckpt")

    def run(*, resume: bool) -> dict[str, Tensor]:
        torch.manual_seed(int(resume))  # the global state must not matter
        model, callbacks = small_model(), [WeightEMA(0.9), SaveHalfway()]
        trainer = make_trainer(max_epochs=4, callbacks=callbacks)
        path = tmp_path / "halfway.ckpt" if resume else None
        trainer.fit(model, datamodule=data, ckpt_path=path)
        state: dict[str, Tensor] = model.state_dict()
        return state

    whole, resumed = run(resume=False), run(resume=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_other_genes_than_the_models_are_refused(
    trained: Any, mixture: Any, make_data: Any, validate: Any
) -> None:
    model, _, _ = trained
    data = make_data(mixture.sample(100, seed=1), n_val=20)
    data.gene_ids[3] = "ENSG99999"
    with pytest.raises(ValueError, match="differ in gene_ids: take the data"):
        validate(model, data)


@pytest.mark.parametrize("tokenizer", [None, RankTokens()])
def test_a_tokenizer_without_one_token_a_gene_is_refused(
    tokenizer: Any, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    data = make_data(mixture.sample(100, seed=1), n_val=20)
    data.tokenizer = tokenizer
    with pytest.raises(ValueError, match="needs a tokenizer with one token a gene"):
        make_trainer(max_epochs=1).fit(small_model(), datamodule=data)


def test_a_label_that_is_not_served_is_refused(mixture: Any, make_data: Any, validate: Any) -> None:
    data = make_data(mixture.sample(100, seed=1), n_val=20)
    with pytest.raises(ValueError, match=r"serves no label tissue; it serves \['half'\]"):
        validate(MaskedDiffusion(labels=["tissue"]), data)


def test_a_model_with_no_data_says_where_its_sizes_come_from(
    mixture: Any, make_data: Any, make_trainer: Any, small_model: Any, validate: Any
) -> None:
    loader = make_data(mixture.sample(100, seed=1), n_val=20).val_dataloader()
    with pytest.raises(ValueError, match="takes its sizes from a ScRNADataModule"):
        make_trainer().validate(small_model(), dataloaders=loader)


def test_count_nll_of_independent_genes_agrees_across_tokenizers(
    make_trainer: Any, small_model: Any
) -> None:
    rng = np.random.default_rng(4)
    counts = rng.negative_binomial(1.5, 0.35, (3_000, 24)).astype(np.int16)
    scores = []
    for tokenizer in (CountTokens(32), LogBinTokens(12), QuantileTokens(8)):
        data = StandIn(counts, n_val=1_000, batch_size=64, tokenizer=tokenizer)
        data.train_dataset.total_counts[:] = data.val_dataset.total_counts[:] = 100
        model = small_model(learning_rate=1e-3)
        trainer = make_trainer(max_epochs=1)
        trainer.fit(model, datamodule=data)
        scores.append({k: float(v) for k, v in trainer.callback_metrics.items()})
    nlls = [score["val/count_nll"] for score in scores]
    assert max(nlls) - min(nlls) < 0.02
    # Their token losses differ by far more: coarse bins look better than they are.
    losses = [score["val/loss"] for score in scores]
    assert max(losses) - min(losses) > 0.2


def test_on_gene_shuffled_real_cells_the_gain_vanishes(
    pbmc_dir: Path, make_trainer: Any, small_model: Any
) -> None:
    real = ScRNADataModule(Pbmc(), pbmc_dir, **PBMC_SETTINGS)
    real.setup()
    train, val = (np.asarray(d[:].expression) for d in (real.train_dataset, real.val_dataset))

    def gain(counts: NDArray[Any]) -> float:
        data = StandIn(counts, n_val=len(val), batch_size=32, tokenizer=LogBinTokens(8))
        data.train_dataset.total_counts[:] = data.val_dataset.total_counts[:] = 100
        trainer = make_trainer(max_epochs=15)
        trainer.fit(small_model(d_model=32, patch_size=8), datamodule=data)
        scores = {k: float(v) for k, v in trainer.callback_metrics.items()}
        return scores["val/marginal"] - scores["val/loss"]

    counts = np.concatenate([val, train])
    assert gain(counts) > 0.05
    assert gain(shuffle_genes(counts)) < 0.01


def test_half_precision_learns_as_whole_precision_does(
    mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    losses = []
    for precision in ("32-true", "bf16-mixed"):
        data = make_data(mixture.sample(456, seed=1), n_val=200)
        trainer = make_trainer(max_epochs=4, precision=precision, callbacks=[WeightEMA(0.9)])
        trainer.fit(small_model(patch_size=4), datamodule=data)
        losses.append({k: float(v) for k, v in trainer.callback_metrics.items()})
    assert losses[1]["val/loss"] == pytest.approx(losses[0]["val/loss"], abs=0.01)
    assert losses[0]["val/marginal"] - losses[0]["val/loss"] > 0.03


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the compiler's own
@pytest.mark.soak  # half a minute, and a C++ compiler
def test_a_compiled_network_learns_the_same_and_its_checkpoint_needs_no_compiler(
    tmp_path: Path, mixture: Any, make_data: Any, make_trainer: Any, small_model: Any
) -> None:
    losses = []
    for compiled in (False, True):
        data = make_data(mixture.sample(178, seed=1), n_val=50)
        model = small_model(compile_network=compiled)
        trainer = make_trainer(max_epochs=2, callbacks=[WeightEMA(0.9)])
        trainer.fit(model, datamodule=data)
        losses.append(float(trainer.callback_metrics["val/loss"]))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert model.denoiser._compiled_call_impl is not None
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = MaskedDiffusion.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert loaded.denoiser._compiled_call_impl is None
    assert loaded.generate(5, steps=2).shape == (5, 24)


def test_codes_of_the_data_are_mapped_to_the_models_by_name() -> None:
    own = {"cell_type": ["T", "B", "NK"], "tissue": ["blood", "lung"]}
    maps = map_codes({"cell_type": ["B", "T"], "tissue": ["blood", "lung"]}, own)
    assert {name: codes.tolist() for name, codes in maps.items()} == {"cell_type": [1, 0, -1]}
    assert maps["cell_type"][torch.tensor([0, 1, -1])].tolist() == [1, 0, -1]
    with pytest.raises(ValueError, match=r"differ in categories: .*no cell_type \['Mast'\]"):
        map_codes({"cell_type": ["B", "Mast"]}, own)


class Bomb:
    """What runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return self.path.touch, ()


@pytest.mark.parametrize("settings", [{}, {"weights_only": True}, {"map_location": "cpu"}])
def test_a_checkpoint_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    torch.save({"hyper_parameters": Bomb(tmp_path / "ran")}, tmp_path / "evil.ckpt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ValueError, match="holds more than tensors and plain values"):
        MaskedDiffusion.load_from_checkpoint(tmp_path / "evil.ckpt", **settings)
    seen: list[Any] = []
    monkeypatch.setattr(torch, "load", lambda *_, **given: seen.append(given) or {})
    with suppress(Exception):
        MaskedDiffusion.load_from_checkpoint(tmp_path / "evil.ckpt", **settings)
    assert [given["weights_only"] for given in seen] == [True]
    assert not (tmp_path / "ran").exists()
