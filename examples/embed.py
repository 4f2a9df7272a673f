"""An embedding of every cell, in your AnnData: `python examples/embed.py [DATA_DIR]`.

A denoising autoencoder is trained; what its narrow layer says of each cell becomes `obsm["X_own"]`.
"""

import sys

import lightning as L
import scanpy as sc
import torch
from anndata import AnnData
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn
from torch.nn.functional import dropout, mse_loss

from scdiff_data import CellBatch, Pbmc, ScRNADataModule


class Autoencoder(L.LightningModule):
    """Finds log counts again, of which a third were hidden."""

    def __init__(self, n_genes: int, n_latent: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(n_genes, 64), nn.ReLU(), nn.Linear(64, n_latent))
        self.decoder = nn.Sequential(nn.Linear(n_latent, 64), nn.ReLU(), nn.Linear(64, n_genes))

    def forward(self, batch: CellBatch) -> Tensor:
        """Log counts, scaled to 10,000 a cell."""
        counts, metadata = batch
        return torch.log1p(1e4 * counts / metadata["total_counts"][:, None])

    def training_step(self, batch: CellBatch, batch_idx: int) -> Tensor:
        """How far what is found again is from what was there."""
        x = self(batch)
        return mse_loss(self.decoder(self.encoder(dropout(x, 1 / 3))), x)

    def predict_step(self, batch: CellBatch, batch_idx: int) -> Tensor:
        """The embedding of a batch, [b, n_latent]."""
        return self.encoder(self(batch))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), 3e-3)


def main(data_dir: str = "data/examples") -> None:
    """Train on the training cells, predict all, and see whether neighbours are of one type."""
    L.seed_everything(1)
    own = {"min_genes": None, "min_counts": None, "split": {"by": "cell"}}  # few cells, few genes
    cells = ScRNADataModule(Pbmc(), data_dir, n_hvgs=192, batch_size=32, predict_split="all", **own)
    cells.prepare_data()
    trainer = L.Trainer(
        max_epochs=30, limit_val_batches=0, logger=False, enable_checkpointing=False
    )
    model = Autoencoder(cells.n_genes)
    trainer.fit(model, datamodule=cells)
    predicted = trainer.predict(model, datamodule=cells)

    adata: AnnData = sc.datasets.pbmc68k_reduced()  # the same cells, as their authors name them
    adata.obs_names = adata.obs_names.str.split("-").str[0]
    cells.write_obsm(adata, "X_own", predicted)  # each row to its cell, whatever the order
    near = NearestNeighbors(n_neighbors=2).fit(adata.obsm["X_own"])
    neighbour = near.kneighbors(return_distance=False)[:, 0]
    types = adata.obs["bulk_labels"].to_numpy()
    chance = (adata.obs["bulk_labels"].value_counts(normalize=True) ** 2).sum()
    agreeing = (types == types[neighbour]).mean()
    print(f"{adata.obsm['X_own'].shape}; the nearest neighbour is of the same type for", end=" ")
    print(f"{agreeing:.3f} of the cells, a random one for {chance:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
