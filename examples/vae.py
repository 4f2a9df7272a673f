"""A variational autoencoder of counts: `python examples/vae.py [DATA_DIR]`.

A cell's counts are negative binomial; its latent vector says what fraction of them each gene gets.
What that is worth shows beside the same likelihood with the same fractions for all cells.
"""

import sys

import lightning as L
import torch
from torch import Tensor, nn
from torch.distributions import NegativeBinomial, Normal, kl_divergence

from scdiff_data import CellBatch, Pbmc, ScRNADataModule


class VAE(L.LightningModule):
    """Counts x [b, g] of depth d, latent z [b, n_latent]: z ~ N(0, 1), x ~ NB(d softmax(f(z)))."""

    def __init__(self, n_genes: int, n_latent: int = 10) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.encoder = nn.Sequential(nn.Linear(n_genes, 64), nn.ReLU(), nn.Linear(64, 2 * n_latent))
        self.decoder = nn.Sequential(nn.Linear(n_latent, 64), nn.ReLU(), nn.Linear(64, n_genes))
        self.log_dispersion = nn.Parameter(torch.zeros(n_genes))
        self.for_all_cells = nn.Parameter(torch.zeros(2, n_genes))  # fractions and dispersions

    def forward(self, counts: Tensor) -> Normal:
        """Where in the latent space the cells may be."""
        mean, log_scale = self.encoder(counts.float().log1p()).chunk(2, dim=1)
        return Normal(mean, log_scale.exp())

    def losses(self, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Nats a gene: the bound on the negative log-likelihood, and that without a latent."""
        latent = self(counts)
        divergence = kl_divergence(latent, Normal(0.0, 1.0)).sum(1)
        found = _log_prob(counts, self.decoder(latent.rsample()), self.log_dispersion)
        alone = _log_prob(counts, *self.for_all_cells)
        return (divergence - found).mean() / counts.shape[1], -alone.mean() / counts.shape[1]

    def training_step(self, batch: CellBatch, batch_idx: int) -> Tensor:
        """Both are trained; they share nothing."""
        return sum(self.losses(batch.expression))

    def test_step(self, batch: CellBatch, batch_idx: int) -> None:
        """Score held-out cells."""
        self.log_dict(dict(zip(("vae", "alone"), self.losses(batch.expression), strict=True)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 3e-3)


def _log_prob(counts: Tensor, logits: Tensor, log_dispersion: Tensor) -> Tensor:
    """Of each cell, whose depth is given, [b]."""
    log_mean = counts.sum(1, keepdim=True).log() + logits.log_softmax(-1)
    found = NegativeBinomial(log_dispersion.exp(), logits=log_mean - log_dispersion)
    return found.log_prob(counts).sum(1)


def main(data_dir: str = "data/examples") -> None:
    """Train on the training cells, score on the test cells."""
    L.seed_everything(1)
    own = {"min_genes": None, "min_counts": None, "split": {"by": "cell"}}  # few cells, few genes
    cells = ScRNADataModule(Pbmc(), data_dir, n_hvgs=192, batch_size=32, **own)
    trainer = L.Trainer(
        max_epochs=40, limit_val_batches=0, logger=False, enable_checkpointing=False
    )
    cells.prepare_data()
    model = VAE(cells.n_genes)
    means = cells.train_dataset[:].expression.float().mean(0)
    model.for_all_cells.data[0] = means.clamp(min=1e-4).log()
    trainer.fit(model, datamodule=cells)
    scores = trainer.test(model, datamodule=cells, verbose=False)[0]
    print(f"test cells, nats a gene: {scores['vae']:.3f}, without a latent {scores['alone']:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
