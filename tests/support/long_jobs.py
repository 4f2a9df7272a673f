"""Many batches and many epochs, with what they take: what children do."""

import os
import resource
import time
from pathlib import Path

from scdiff_data import create_hvg_dataloader

N_LOOKS = 100
"""Looks at memory and time, evenly over a run."""


def read_batches(data_dir: str, n_batches: int) -> list[tuple[int, float]]:
    """Read so many batches; after each hundredth the bytes in memory and seconds of it."""
    loader = create_hvg_dataloader(Path(data_dir), 8, shuffle=True)
    done, epoch, looks, step = 0, 0, [], max(1, n_batches // N_LOOKS)
    started = time.process_time()
    while len(looks) < N_LOOKS:
        loader.sampler.set_epoch(epoch)
        for _ in loader:
            done += 1
            if done % step == 0:
                looks.append((_memory(), time.process_time() - started))
                started = time.process_time()
        epoch += 1
    return looks[:N_LOOKS]


def read_epochs(data_dir: str, n_epochs: int) -> list[tuple[int, float]]:
    """Read so many epochs, each from a loader of its own; after each the same."""
    looks = []
    for epoch in range(n_epochs):
        started = time.process_time()
        loader = create_hvg_dataloader(Path(data_dir), 8, shuffle=True)
        loader.sampler.set_epoch(epoch)
        for _ in loader:
            pass
        looks.append((_memory(), time.process_time() - started))
    return looks


def _memory() -> int:
    pages = int(Path(f"/proc/{os.getpid()}/statm").read_text().split()[1])
    return pages * resource.getpagesize()
