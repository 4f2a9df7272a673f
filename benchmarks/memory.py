"""What a GPU's memory must hold to train the demo model: `python benchmarks/memory.py`.

2,000 genes, 16 tokens, bf16 autocast. Counted on the CPU: the bytes that autograd keeps of a cell
for the backward pass, uncompiled, and twenty bytes a weight (float32 weights, gradients, both
moments of Adam, the moving average). Not counted: what is computed on the way, and CUDA's own.
"""

import argparse
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor
from torch.nn.functional import cross_entropy

from scdiff_data.diffusion import Denoiser

CONFIGS = Path(__file__).parents[1] / "configs"
N_GENES, N_TOKENS = 2_000, 16
BYTES_A_WEIGHT = 20


def make_network(size: str) -> Denoiser:
    """The network of a model's file."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        model = compose("train", [f"model={size}"]).model
    names = ("d_model", "n_layers", "n_heads", "patch_size")
    return Denoiser(N_GENES, n_tokens=N_TOKENS, **{name: model[name] for name in names})


def count_kept(network: Denoiser, n_cells: int) -> int:
    """Bytes that autograd keeps of a batch, the weights not among them."""
    weights = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    kept: dict[int, Tensor] = {}  # held, so that no storage takes another's address

    def keep(tensor: Tensor) -> Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            kept[place] = tensor
        return tensor

    tokens = torch.randint(0, N_TOKENS + 1, (n_cells, N_GENES))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16):
        logits = network(
            tokens,
            total_counts_b=torch.full((n_cells,), 5_000),
            labels_bl=torch.zeros(n_cells, 0, dtype=torch.int64),
        )
        cross_entropy(logits.float().flatten(0, 1), tokens.clamp(max=N_TOKENS - 1).flatten())
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="changes nothing: it takes seconds")
    parser.parse_args()
    print("model   weights  kept a cell  with batches of 128      512    2,048")
    for size in ("tiny", "small", "base"):
        network = make_network(size)
        few, more = (count_kept(network, n_cells) for n_cells in (2, 6))
        of_cell = (more - few) / 4
        n_weights = sum(weight.numel() for weight in network.parameters())
        fixed = BYTES_A_WEIGHT * n_weights + few - 2 * of_cell
        sizes = "".join(f"{(fixed + n * of_cell) / 1e9:6.1f} GB" for n in (128, 512, 2_048))
        print(f"{size:6}{n_weights / 1e6:7.1f} M{of_cell / 1e6:10.2f} MB{'':12}{sizes}")


if __name__ == "__main__":
    main()
