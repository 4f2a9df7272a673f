"""Cell types from counts: `python examples/classifier.py [DATA_DIR]`.

The data tell the model its sizes, and which types there are.
"""

import sys

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scdiff_data import CellBatch, Pbmc, ScRNADataModule


class CellTypes(L.LightningModule):
    """A network of one hidden layer, from counts to cell types."""

    def __init__(
        self,
        n_genes: int,
        cell_types: list[str],
        n_hidden: int = 64,
        dropout: float = 0.3,
        learning_rate: float = 3e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.network = nn.Sequential(
            nn.Linear(n_genes, n_hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(n_hidden, len(cell_types)),
        )

    def forward(self, counts: Tensor) -> Tensor:
        """Logits of the types, of counts scaled to 10,000 a cell."""
        depth = counts.sum(1, keepdim=True).clamp(min=1)
        return self.network(torch.log1p(1e4 * counts / depth))

    def training_step(self, batch: CellBatch, batch_idx: int) -> Tensor:
        """Cells without a label have the code -1."""
        counts, metadata = batch
        return cross_entropy(self(counts), metadata["cell_type"], ignore_index=-1)

    def test_step(self, batch: CellBatch, batch_idx: int) -> None:
        """The fraction of the cells whose type is found."""
        counts, metadata = batch
        is_right = self(counts).argmax(1) == metadata["cell_type"]
        self.log("accuracy", is_right.float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam, with weights that decay."""
        return torch.optim.AdamW(self.parameters(), self.learning_rate)


def main(data_dir: str = "data/examples") -> None:
    """Train on the training cells, score on the test cells."""
    L.seed_everything(1)
    own = {"min_genes": None, "min_counts": None, "split": {"by": "cell"}}  # few cells, few genes
    cells = ScRNADataModule(Pbmc(), data_dir, n_hvgs=192, batch_size=32, **own)
    cells.prepare_data()  # a Trainer does this too, but the model wants to know its sizes before
    model = CellTypes(cells.n_genes, cells.categories["cell_type"])
    trainer = L.Trainer(
        max_epochs=20, limit_val_batches=0, logger=False, enable_checkpointing=False
    )
    trainer.fit(model, datamodule=cells)
    scores = trainer.test(model, datamodule=cells, verbose=False)[0]
    known, asked = (
        data[:].metadata["cell_type"] for data in (cells.train_dataset, cells.test_dataset)
    )
    majority = (asked == known.mode().values).float().mean()
    print(f"test accuracy {scores['accuracy']:.3f}, with the most frequent type {majority:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
