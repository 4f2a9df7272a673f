"""A loop of torch's own that goes on in mid-epoch: `python examples/plain_torch.py [DATA_DIR]`.

A run that stops is picked up from its checkpoint, sees exactly the cells not yet seen, and ends
with the weights of a run that was left alone.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from scdiff_data import HVGDataset, Pbmc, Recipe, create_hvg_dataloader, prepare

N_STEPS = 340
"""Steps of a whole run: 20 epochs of 17 batches."""


def normalize(counts: Tensor) -> Tensor:
    """Log counts, scaled to 10,000 a cell."""
    return torch.log1p(1e4 * counts / counts.sum(1, keepdim=True).clamp(min=1))


def train(data_dir: str, checkpoint: Path, *, until: int = N_STEPS) -> nn.Module:
    """Train `until` a step, from the checkpoint if there is one, and leave one."""
    torch.manual_seed(1)
    cells = HVGDataset(data_dir)
    n_types = len(cells.categories["cell_type"])
    model = nn.Sequential(nn.Linear(cells.n_genes, 64), nn.ReLU(), nn.Linear(64, n_types))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    loader = create_hvg_dataloader(data_dir, batch_size=32)
    step = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(state["loader"])
        step = state["step"]
    while step < until:
        for counts, metadata in loader:  # each time the next epoch, in another order
            loss = cross_entropy(model(normalize(counts)), metadata["cell_type"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step == until:
                break
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state | {"loader": loader.state_dict(), "step": step}, checkpoint)
    return model


def main(data_dir: str = "data/examples") -> None:
    """Train twice, once with a stop in the middle of the eighth epoch; score on the test cells."""
    own = {"min_genes": None, "min_counts": None, "split": {"by": "cell"}}  # few cells, few genes
    prepare(Recipe(source=Pbmc(), n_hvgs=192, **own), data_dir)
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = train(data_dir, Path(folder, "undisturbed.pt"))
        train(data_dir, Path(folder, "stopped.pt"), until=125)
        model = train(data_dir, Path(folder, "stopped.pt"))
    pairs = zip(model.parameters(), undisturbed.parameters(), strict=True)
    print(f"weights as without the stop: {all(torch.equal(*pair) for pair in pairs)}")
    counts, metadata = HVGDataset(data_dir, split="test")[:]
    accuracy = (model(normalize(counts)).argmax(1) == metadata["cell_type"]).float().mean()
    majority = metadata["cell_type"].bincount().max() / len(counts)
    print(f"test accuracy {accuracy:.3f}, with the most frequent type {majority:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
