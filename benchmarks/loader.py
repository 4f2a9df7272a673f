"""How fast HVG batches come, beside the same rows taken from RAM: `python benchmarks/loader.py`.

Every contender gives torch tensors [128, 2000] of all training cells in a shuffled order, in one
process and one thread, warm cache; rounds are interleaved and the median counts. `--quick` takes
fewer cells.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch

from scdiff_data import (
    HVGDataset,
    LogBinTokens,
    Recipe,
    SimulatedAtlas,
    create_hvg_dataloader,
    prepare,
)
from scdiff_data.manifest import Manifest

BATCH_SIZE, N_HVGS = 128, 2000


def make_data(folder: Path, *, quick: bool) -> None:
    atlas = SimulatedAtlas(n_experiments=10 if quick else 40, n_cells=2500, n_genes=2500)
    recipe = Recipe(
        source=atlas, n_hvgs=N_HVGS, split={"by": "cell", "val": 0, "test": 0}, labels=["cell_type"]
    )
    prepare(recipe, folder)


def ours(folder: Path) -> Callable[[int], Iterator[torch.Tensor]]:
    loader = create_hvg_dataloader(folder, BATCH_SIZE)

    def batches(epoch: int) -> Iterator[torch.Tensor]:
        loader.sampler.set_epoch(epoch)
        for expression, _ in loader:
            yield expression

    return batches


def ours_with_tokens(folder: Path) -> Callable[[int], Iterator[torch.Tensor]]:
    tokenizer, plain = LogBinTokens(), ours(folder)

    def batches(epoch: int) -> Iterator[torch.Tensor]:
        for expression in plain(epoch):
            yield tokenizer.encode(expression)

    return batches


def from_ram(folder: Path) -> Callable[[int], Iterator[torch.Tensor]]:
    """The bound: `numpy.take` from one array in memory, without metadata."""
    cells = HVGDataset(folder)[:].expression.numpy()

    def batches(epoch: int) -> Iterator[torch.Tensor]:
        order = np.random.default_rng(epoch).permutation(len(cells))
        for start in range(0, len(cells) - BATCH_SIZE + 1, BATCH_SIZE):
            yield torch.from_numpy(cells.take(order[start : start + BATCH_SIZE], axis=0))

    return batches


def plain_h5py(folder: Path) -> Callable[[int], Iterator[torch.Tensor]]:
    """The same shards through h5py's own indexing, a row at a time."""
    files = [h5py.File(path)["expression"] for path in Manifest.read(folder).shards]
    n_cells, shard_size = sum(map(len, files)), len(files[0])

    def batches(epoch: int) -> Iterator[torch.Tensor]:
        order = np.random.default_rng(epoch).permutation(n_cells)[: 30 * BATCH_SIZE]
        for start in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE):
            rows = order[start : start + BATCH_SIZE]
            yield torch.from_numpy(np.stack([files[r // shard_size][r % shard_size] for r in rows]))

    return batches


def measure(batches: Callable[[int], Iterator[torch.Tensor]], epoch: int) -> float:
    """Cells a second over an epoch."""
    n_cells, started = 0, time.perf_counter()
    for batch in batches(epoch):
        n_cells += len(batch)
    return n_cells / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cells and rounds")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        make_data(Path(name), quick=quick)
        contenders = {
            "numpy.take from RAM (bound)": from_ram(Path(name)),
            "scdiff_data": ours(Path(name)),
            "scdiff_data, log-bin tokens": ours_with_tokens(Path(name)),
            "h5py, a row at a time": plain_h5py(Path(name)),
        }
        rates: dict[str, list[float]] = {contender: [] for contender in contenders}
        for epoch in range(-1, 7 if quick else 15):
            for contender, batches in contenders.items():
                rate = measure(batches, epoch + 1)
                if epoch >= 0:  # the first round compiles and warms the cache
                    rates[contender].append(rate)
    medians = {contender: statistics.median(values) for contender, values in rates.items()}
    for contender, rate in medians.items():
        print(f"{contender:30} {rate:12,.0f} cells/s")
    bound, plain, tokens, _ = medians.values()
    for goal, measured, wanted in (
        ("hvg_batches_vs_ram", plain / bound, 0.8),
        ("token_batches_vs_ram", tokens / bound, 0.5),
    ):
        verdict = "met" if measured >= wanted else "missed"
        print(f"goal {goal}: {measured:.2f} (wanted >= {wanted}): {verdict}")


if __name__ == "__main__":
    main()
