"""What a DataModule needs of a tokenizer, of yours too."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Tokenizer(Protocol):
    """What a DataModule needs of a tokenizer, of yours too.

    A `torch.nn.Module` whose state is buffers has `state_dict` and `to` already; they may take more
    arguments, and so are properties here: jsonargparse, which makes tokenizers from YAML, compares
    methods by every argument and annotation.
    """

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary."""
        ...

    def settings(self) -> dict[str, Any]:
        """What it was made with, before any fit: plain values, by which a stored fit is found."""
        ...

    def fit(self, counts: NDArray[np.int16], total_counts: NDArray[np.integer[Any]]) -> None:
        """Learn from training cells: counts [n_cells, n_genes], and each whole cell's total."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the `state_dict` of another of the same settings that was fitted."""
        ...

    def encode(self, counts: Tensor) -> Tensor:
        """Token ids, int64, of a batch's counts [b, g] on their own device."""
        ...

    @property
    def state_dict(self) -> Callable[[], Mapping[str, Any]]:
        """Called, what `restore` takes, and what checkpoints keep."""
        ...

    @property
    def to(self) -> Callable[[torch.device], Any]:
        """Called with a device, moves the state there, in place."""
        ...


def find_count_table(tokenizer: Tokenizer) -> NDArray[Any] | None:
    """A tokenizer's `count_table`; None if it has none, or an `encode` of its own beside it."""
    for kind in type(tokenizer).__mro__:
        if "count_table" in vars(kind):
            return tokenizer.count_table  # type: ignore[attr-defined, no-any-return]
        if "encode" in vars(kind):
            return None
    return None
