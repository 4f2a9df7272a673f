"""scvi-tools' SCVI, trained from disk on 700 real blood cells; half a minute on two CPU cores.

    pip install 'scdiff_data[scvi]'
    python examples/scvi_tools.py

Writes `data/scvi_tools`: the prepared cells, the model, and an AnnData with a latent row a cell.
"""

from pathlib import Path

import anndata as ad
from scvi.model import SCVI
from sklearn.neighbors import NearestNeighbors

from scdiff_data import Pbmc
from scdiff_data.scvi import ScviDataModule

FOLDER = Path("data/scvi_tools")


def prepare() -> ScviDataModule:
    """The cells on disk; the second call finds them."""
    cells = ScviDataModule(
        Pbmc(),
        FOLDER / "cells",
        scvi_batch_key="experiment_id",
        n_hvgs=192,
        min_genes=None,
        min_counts=None,
        split={"by": "cell"},
    )
    cells.prepare_data()
    return cells


def train(cells: ScviDataModule) -> SCVI:
    """A model of the training cells, and how well it does on the validation cells."""
    model = SCVI(registry=cells.registry, n_latent=10, gene_likelihood="nb")
    model.train(datamodule=cells, max_epochs=20, check_val_every_n_epoch=5)
    print(model.history["elbo_validation"])
    model.save(FOLDER / "model", overwrite=True, datamodule=cells)
    return SCVI.load(FOLDER / "model", adata=False)


def embed(model: SCVI, cells: ScviDataModule) -> ad.AnnData:
    """All cells with all their genes, and what the model makes of each."""
    files = sorted((FOLDER / "cells" / "cells").glob("*.h5ad"))
    adata = ad.concat([ad.read_h5ad(file) for file in files])
    latent = model.get_latent_representation(dataloader=cells.inference_dataloader())
    cells.write_obsm(adata, "X_scVI", latent)
    return adata


def score(adata: ad.AnnData) -> float:
    """How often a cell's nearest neighbour is of its type."""
    found = NearestNeighbors(n_neighbors=1).fit(adata.obsm["X_scVI"]).kneighbors()[1][:, 0]
    types = adata.obs["cell_type"].astype(str).to_numpy()
    return float((types == types[found]).mean())


if __name__ == "__main__":
    cells = prepare()
    adata = embed(train(cells), cells)
    adata.write_h5ad(FOLDER / "embedded.h5ad")
    print(f"{adata.n_obs} cells, {score(adata):.0%} have a nearest neighbour of their type")
