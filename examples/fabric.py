"""A loop of Lightning Fabric's that goes on in mid-epoch: `python examples/fabric.py [DATA_DIR]`.

The loader is part of the checkpoint, as the model and the optimizer are. On several devices each
gets cells of its own, and equally many batches.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scdiff_data import HVGDataset, Pbmc, Recipe, create_hvg_dataloader, prepare

N_STEPS = 340
"""Steps of a whole run: 20 epochs of 17 batches, on one device."""


def normalize(counts: Tensor) -> Tensor:
    """Log counts, scaled to 10,000 a cell."""
    return torch.log1p(1e4 * counts / counts.sum(1, keepdim=True).clamp(min=1))


def train(fabric: L.Fabric, data_dir: str, checkpoint: Path, *, until: int = N_STEPS) -> nn.Module:
    """Train `until` a step, from the checkpoint if there is one, and leave one."""
    fabric.seed_everything(1)
    cells = HVGDataset(data_dir)
    n_types = len(cells.categories["cell_type"])
    network = nn.Sequential(nn.Linear(cells.n_genes, 64), nn.ReLU(), nn.Linear(64, n_types))
    model, optimizer = fabric.setup(network, torch.optim.AdamW(network.parameters(), 3e-3))
    loader = fabric.setup_dataloaders(create_hvg_dataloader(data_dir, batch_size=32))
    state: dict[str, Any] = {"model": model, "optimizer": optimizer, "loader": loader, "step": 0}
    if checkpoint.exists():
        fabric.load(checkpoint, state)
    while state["step"] < until:
        for counts, metadata in loader:  # each time the next epoch, in another order
            loss = cross_entropy(model(normalize(counts)), metadata["cell_type"])
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            state["step"] += 1
            if state["step"] == until:
                break
    fabric.save(checkpoint, state)
    return network


def main(data_dir: str = "data/examples") -> None:
    """Train twice, once with a stop in the middle of the eighth epoch; score on the test cells."""
    fabric = L.Fabric()
    fabric.launch()
    own = {"min_genes": None, "min_counts": None, "split": {"by": "cell"}}  # few cells, few genes
    with fabric.rank_zero_first(local=True):  # the others find it prepared
        prepare(Recipe(source=Pbmc(), n_hvgs=192, **own), data_dir)
    folder = Path(fabric.broadcast(tempfile.mkdtemp()))
    undisturbed = train(fabric, data_dir, folder / "undisturbed.ckpt")
    train(fabric, data_dir, folder / "stopped.ckpt", until=125)
    network = train(fabric, data_dir, folder / "stopped.ckpt")
    pairs = zip(network.parameters(), undisturbed.parameters(), strict=True)
    fabric.print(f"weights as without the stop: {all(torch.equal(*pair) for pair in pairs)}")
    counts, metadata = fabric.to_device(HVGDataset(data_dir, split="test")[:])
    accuracy = (network(normalize(counts)).argmax(1) == metadata["cell_type"]).float().mean()
    majority = metadata["cell_type"].bincount().max() / len(counts)
    fabric.print(f"test accuracy {accuracy:.3f}, with the most frequent type {majority:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
