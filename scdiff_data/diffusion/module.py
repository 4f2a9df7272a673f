"""The system: what Lightning trains, validates and saves, and what generates.

Sizes flow from the data to the model: `configure_model` reads them from the trainer's datamodule
and writes them to the hyperparameters, so a checkpoint alone gives back a model that generates.

Shapes: b cells of a batch, c cells, g genes, v tokens, l labels.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from scdiff_data.callbacks import explain_unreadable
from scdiff_data.diffusion.denoiser import Denoiser, check_sizes, count_flops
from scdiff_data.diffusion.generate import generate_cells, impute_cells
from scdiff_data.diffusion.panel import Panel, find_genes, learn_statistics, map_codes, read_panel
from scdiff_data.diffusion.process import (
    N_LOOKS,
    draw_hidden,
    draw_hidden_counts,
    draw_hidden_pairs,
    hide_tokens,
    keyed_generator,
    score_hidden,
)
from scdiff_data.evaluation import make_card
from scdiff_data.loading import TokenBatch
from scdiff_data.tokenizers import BinTokens
from scdiff_data.training import make_optimizer

if TYPE_CHECKING:
    from scdiff_data.training import ScRNADataModule


_SIZES = ("d_model", "n_layers", "n_heads", "patch_size")
"""Hyperparameters that `Denoiser` takes."""

_OPTIMIZER = ("learning_rate", "weight_decay", "n_warmup_steps")
"""Hyperparameters that `make_optimizer` takes."""

_OF_VERSION = {"n_looks": N_LOOKS, "has_label_biases": True}
"""What is the same in all models of one version."""

N_CONDITIONS = 4_096
"""Training cells whose depth and labels are kept, to generate from."""


class MaskedDiffusion(LightningModule):
    """Masked diffusion over the gene tokens of a cell, conditioned on depth and labels.

    Parameters
    ----------
    d_model, n_layers, n_heads
        Size of the network.
    patch_size
        Genes that share a place of the sequence: 1 for panels up to a few hundred genes, 40 to 125
        for thousands.
    labels
        Names of the labels to condition on; the datamodule must serve them.
    learning_rate, n_warmup_steps
        Peak rate, and optimizer steps of linear warm-up to it; then it falls to 0 as a cosine.
    weight_decay
        Decoupled decay of the weight matrices; embeddings, biases and norms have none.
    p_unconditional
        Share of training cells whose condition is withheld, so that samples can be guided.
    compile_network
        Whether `torch.compile` makes the network's kernels: for GPUs.
    seed
        Key of the initial weights and of every mask.
    panel
        The data's names and sizes, as checkpoints hold them; None asks the trainer's datamodule.
    """

    conditions_cl: Tensor
    card: dict[str, Any] | None = None  # what the checkpoint says of itself, once there is one

    def __init__(
        self,
        *,
        d_model: int = 64,
        n_layers: int = 2,
        n_heads: int = 4,
        patch_size: int = 1,
        labels: Sequence[str] = (),
        learning_rate: float = 3e-3,
        n_warmup_steps: int = 20,
        weight_decay: float = 0.05,
        p_unconditional: float = 0.1,
        compile_network: bool = False,
        seed: int = 0,
        panel: Panel | None = None,
    ) -> None:
        super().__init__()
        check_sizes(d_model=d_model, n_layers=n_layers, n_heads=n_heads, patch_size=patch_size)
        labels = list(labels)
        self.save_hyperparameters()
        self._code_maps: dict[str, Tensor] = {}

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        *given: Any,
        weights_only: bool | None = True,
        **settings: Any,
    ) -> Self:
        """As Lightning's, but nothing in it is run; raises ValueError if it is of another model."""
        with explain_unreadable(checkpoint_path, model=cls.__name__):
            how = {"weights_only": weights_only, **settings}
            return super().load_from_checkpoint(checkpoint_path, map_location, *given, **how)

    def setup(self, stage: str) -> None:
        """Refuse data whose genes, bins or categories are not the model's; map codes by name."""
        del stage
        panel, datamodule = self.hparams["panel"], getattr(self.trainer, "datamodule", None)
        if panel is None or datamodule is None:
            return
        found = read_panel(datamodule, labels=self.hparams["labels"])
        self._code_maps = map_codes(found["categories"], panel["categories"])
        names = panel.keys() - {"categories"}
        if different := sorted(name for name in names if found.get(name) != panel.get(name)):
            raise ValueError(
                f"the model and the data differ in {', '.join(different)}: take the data and the "
                "tokenizer that the model was trained on, or train a new model"
            )

    def configure_model(self) -> None:
        """Build the network, once: from the hyperparameters if they know the data's sizes."""
        if hasattr(self, "denoiser"):
            return
        datamodule = None
        if self.hparams["panel"] is None:
            datamodule = getattr(self.trainer, "datamodule", None)
            if datamodule is None:
                raise ValueError(
                    "MaskedDiffusion takes its sizes from a ScRNADataModule, but the trainer has "
                    "none: call trainer.fit(model, datamodule=ScRNADataModule(...))"
                )
            self.hparams["panel"] = read_panel(datamodule, labels=self.hparams["labels"])
        panel = cast("Panel", self.hparams["panel"])
        n_genes, n_tokens = panel["n_genes"], len(panel["token_edges"])
        # Every rank, and every model of this seed, starts from the same weights.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.hparams["seed"])
            self.denoiser = Denoiser(
                n_genes,
                n_tokens=n_tokens,
                n_categories=[len(names) for names in panel["categories"].values()],
                **{name: self.hparams[name] for name in _SIZES},
            )
        conditions_cl = torch.zeros(N_CONDITIONS, 1 + len(panel["categories"]), dtype=torch.int64)
        self.tokenizer = BinTokens(panel["token_edges"])
        self.register_buffer("conditions_cl", conditions_cl)
        if datamodule is not None:
            self._learn_statistics(datamodule)

    def logits(
        self, batch: TokenBatch, hidden_bg: Tensor, *, unconditional_b: Tensor | None = None
    ) -> Tensor:
        """Logits [b, g, v] given the looks that are not hidden, depth and labels."""
        tokens_bg, metadata = batch
        labels = [self._find_codes(label, metadata[label]) for label in self.hparams["labels"]]
        logits_bgv: Tensor = self.denoiser(
            hide_tokens(tokens_bg, hidden_bg, mask_id=self.denoiser.mask_id),
            total_counts_b=metadata["total_counts"],
            labels_bl=torch.stack(labels, -1) if labels else tokens_bg[:, :0],
            unconditional_b=unconditional_b,
            genes_bg=find_genes(self.hparams["panel"], metadata),
        )
        return logits_bgv

    def _find_codes(self, label: str, codes_b: Tensor) -> Tensor:
        """The model's own codes of a label, where the data's are others."""
        own = self._code_maps.get(label)
        return codes_b if own is None else own.to(codes_b.device)[codes_b]  # -1 takes the last

    def on_fit_start(self) -> None:
        """Compile, for training alone: a checkpoint must generate where there is no compiler."""
        if self.hparams["compile_network"]:
            self.denoiser.compile()

    def on_train_start(self) -> None:
        """Say what a step costs, to `ThroughputMonitor`: backward takes twice what forward does."""
        panel, batch_size = self.hparams["panel"], cast("Any", self.trainer).datamodule.batch_size
        self.flops_per_batch = 3 * batch_size * count_flops(self.denoiser, len(panel["gene_ids"]))

    def training_step(self, batch: TokenBatch, batch_idx: int) -> Tensor:
        """Mean over cells of the bound's one-sample estimate, nats a gene."""
        n_cells, n_genes = batch.tokens.shape
        key = (self.hparams["seed"], self.current_epoch, batch_idx)
        k_b = draw_hidden_counts(
            n_cells,
            n_looks=N_LOOKS * n_genes,
            generator=keyed_generator("strata", *key),
            rank=self.global_rank,
            world_size=self.trainer.world_size,
        )
        generator = keyed_generator("masks", *key, self.global_rank)
        hidden_bg = draw_hidden(k_b, n_genes=n_genes, generator=generator).to(self.device)
        chance_b = torch.rand(n_cells, generator=generator).to(self.device)
        unconditional_b = chance_b < self.hparams["p_unconditional"]
        logits_bgv = self.logits(batch, hidden_bg, unconditional_b=unconditional_b)
        loss = score_hidden(logits_bgv, batch.tokens, hidden_bg).mean()
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=n_cells)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Start the sums over validation cells."""
        self._sums = torch.zeros(5, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: TokenBatch, batch_idx: int) -> None:
        """Add a batch's losses, of the model and of the marginals, on the same fixed masks."""
        del batch_idx
        tokens_bg, metadata = batch
        genes_bg = find_genes(self.hparams["panel"], metadata)
        marginal_bgv = self.denoiser.log_marginal_gv[genes_bg].expand(len(tokens_bg), -1, -1)
        scores = []
        for hidden_bg in self._hide_twice(batch):
            predictions = (self.logits(batch, hidden_bg), marginal_bgv)
            scores += [score_hidden(logits, tokens_bg, hidden_bg) for logits in predictions]
        loss_b, marginal_b = torch.stack(scores).view(2, 2, -1).mean(0)
        count_nll_b = loss_b - self.tokenizer.log_prob(metadata["counts"]).mean(-1)
        summed = [torch.ones_like(loss_b), loss_b, loss_b**2, marginal_b, count_nll_b]
        self._sums += torch.stack(summed).double().sum(-1)

    def _hide_twice(self, batch: TokenBatch) -> list[Tensor]:
        ids, n_genes = batch.metadata["cell_id"], batch.tokens.shape[1]
        pair = draw_hidden_pairs(ids, n_genes=n_genes, seed=self.hparams["seed"])
        return [hidden_bg.to(self.device) for hidden_bg in pair]

    def predict_masked(self, batch: TokenBatch) -> Iterator[tuple[Tensor, Tensor]]:
        """For both masks of validation: tokens' probabilities [b, g, v], and which are masked."""
        for hidden_bg in self._hide_twice(batch):
            yield self.logits(batch, hidden_bg).softmax(-1), hidden_bg == N_LOOKS

    def on_validation_epoch_end(self) -> None:
        """Log the means over all cells of all ranks, and the loss's standard error."""
        sums = cast("Tensor", self.trainer.strategy.reduce(self._sums, reduce_op="sum"))
        n_cells, *totals = sums.tolist()
        loss, square, marginal, count_nll = (total / n_cells for total in totals)
        error = math.sqrt(max(square - loss**2, 0) / max(n_cells - 1, 1))
        scores = {"loss": loss, "loss_se": error, "marginal": marginal, "count_nll": count_nll}
        split = "test" if self.trainer.testing else "val"
        # Equal on all ranks already: sync_dist only tells Lightning so.
        for name, score in scores.items():
            self.log(f"{split}/{name}", score, prog_bar=name == "loss", sync_dist=True)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, its rate warmed up linearly, then falling to 0 as a cosine."""
        return make_optimizer(
            self.named_parameters(),
            n_steps=int(self.trainer.estimated_stepping_batches),
            **{name: self.hparams[name] for name in _OPTIMIZER},
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the model card beside the weights, and what they are of."""
        checkpoint["model_card"] = self.card = make_card(self, self.trainer)
        checkpoint.update(_OF_VERSION)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the card along; refuse weights of another model, or of another version's."""
        hparams = checkpoint["hyper_parameters"]
        theirs = {"n_looks": 1, "has_label_biases": not hparams["labels"], **checkpoint, **hparams}
        for name, own in (_OF_VERSION | dict(self.hparams)).items():
            if name in (*_OF_VERSION, "labels", *_SIZES) and theirs[name] != own:
                raise ValueError(
                    f"the checkpoint's model has {name}={theirs[name]}, this one {own}: give the "
                    f"same {name}, or train a new model; {[*_OF_VERSION]} are the version's"
                )
        self.card = checkpoint.get("model_card")

    generate = generate_cells
    impute = impute_cells

    def _learn_statistics(self, datamodule: "ScRNADataModule") -> None:
        """Take what training cells say before training: marginals, depths, decoding."""
        log_marginal_gv, known_cl = learn_statistics(
            datamodule, self.hparams["panel"], labels=self.hparams["labels"]
        )
        self.conditions_cl.copy_(
            known_cl[torch.arange(N_CONDITIONS) * len(known_cl) // N_CONDITIONS]
        )
        depth_c = known_cl[:, 0].float()
        self.denoiser.start_at_marginals(log_marginal_gv, log_depth_c=depth_c.log1p())
        self.tokenizer.load_state_dict(cast("BinTokens", datamodule.tokenizer).state_dict())
