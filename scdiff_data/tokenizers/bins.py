"""Counts to tokens and back.

A tokenizer is a torch module whose state is buffers, so it moves with the model and is saved in its
checkpoints. Encoding is one table look-up on the batch's own device.

`BinTokens` divides the counts 0, 1, 2, … into `n_tokens` neighbouring bins, the last one open, and
knows p(count | token) from the training cells: *decoding* samples it, and a model's likelihood of
tokens plus `log_prob` is its likelihood of counts, which compares across tokenizers. `CountTokens`,
`LogBinTokens` and `QuantileTokens` are three choices of the bins.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scdiff_data.base import compiled
from scdiff_data.constants import MAX_COUNT

_MOST_NARROW = 256
"""Tokens that fit into a byte."""


class BinTokens(nn.Module):
    """Tokens for neighbouring bins of counts.

    Parameters
    ----------
    edges
        First count of every bin: 0, then strictly increasing, at most 32,767. Token `t` stands for
        the counts `edges[t] … edges[t + 1] - 1`; the last token for `edges[-1]` and everything
        above.

    Raises
    ------
    ValueError
        If the edges do not start at 0, do not increase, or exceed 32,767.
    """

    edges: Tensor
    lookup: Tensor
    count_log_prob: Tensor
    tail_log_ratio: Tensor

    def __init__(self, edges: Sequence[int]) -> None:
        super().__init__()
        self._set_edges(np.asarray(edges, dtype=np.int64))

    @property
    def n_tokens(self) -> int:
        """Size of the vocabulary, without the mask."""
        return len(self.edges)

    @property
    def mask_id(self) -> int:
        """Id of the mask token: the first id after the vocabulary."""
        return self.n_tokens

    def fit(self, counts: NDArray[np.int16], total_counts: NDArray[np.integer[Any]]) -> None:
        """Learn p(count | token) from training cells.

        Closed bins take the histogram of the training counts, smoothed by half a count; the open
        bin a geometric tail fitted by maximum likelihood.

        Parameters
        ----------
        counts
            Training counts, [n_cells, n_genes].
        total_counts
            Each cell's total over all its genes, [n_cells]; not used by bins.
        """
        del total_counts
        histogram = np.bincount(counts.ravel(), minlength=MAX_COUNT + 1).astype(np.float64)
        edges = self.edges.numpy(force=True)
        top = edges[-1]
        smoothed = histogram[:top] + 0.5
        if top:
            smoothed /= np.repeat(np.add.reduceat(smoothed, edges[:-1]), np.diff(edges))
        excess = np.arange(len(histogram) - top) @ histogram[top:]
        ratio = (excess + 0.5) / (excess + histogram[top:].sum() + 1.0)
        self.count_log_prob.copy_(torch.from_numpy(np.log(smoothed)))
        self.tail_log_ratio.fill_(float(np.log(ratio)))

    def settings(self) -> dict[str, Any]:
        """What it was made with, before any fit: plain values."""
        return {"edges": self.edges.tolist()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the state that another of the same settings was fitted to.

        Raises
        ------
        ValueError, RuntimeError
            If it is none.
        """
        edges = self.edges.tolist()
        self._set_edges(state["edges"].numpy(force=True))
        lookup = self.lookup.clone()
        self.load_state_dict(state)
        is_sound = self.edges.tolist() == edges and torch.equal(self.lookup, lookup)
        logarithms = torch.cat([self.count_log_prob, self.tail_log_ratio[None]])
        if not is_sound or not (logarithms.isfinite() & (logarithms <= 0)).all():
            raise ValueError(f"this is no state of {type(self).__name__} with bins from {edges}")

    def encode(self, counts: Tensor) -> Tensor:
        """Token ids, int64, of the same shape as `counts` (whole numbers in 0 … 32,767)."""
        if counts.dtype == torch.int16 and counts.is_cpu and counts.is_contiguous():
            tokens = torch.empty(counts.shape, dtype=torch.int64)
            look_up(counts.numpy().reshape(-1), self.lookup.numpy(), tokens.numpy().reshape(-1))
            return tokens
        flat = self.lookup.index_select(0, counts.reshape(-1).int())
        return flat.view(counts.shape).long()

    @property
    def count_table(self) -> NDArray[Any]:
        """What each count 0 … 32,767 becomes: `encode` as a table of narrow tokens.

        uint8, or int16 above 256 tokens; [32768]. With it tokens are looked up while cells are
        gathered. A subclass whose `encode` does more than look counts up overrides this, too.
        """
        lookup: NDArray[np.int32] = self.lookup.numpy(force=True)
        return lookup.astype(np.uint8 if self.n_tokens <= _MOST_NARROW else np.int16)

    def decode(self, tokens: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Counts, int64, drawn from p(count | token); `tokens` int64 of any shape, no masks."""
        uniform = torch.rand(
            tokens.shape, dtype=torch.float64, device=tokens.device, generator=generator
        )
        # The closed bins' probabilities sum to 1 each, so their running sum passes t at token t's
        # first count: one search inverts every token's distribution at once.
        cumulative = self.count_log_prob.exp().cumsum(0)
        closed = torch.searchsorted(cumulative, tokens + uniform, right=True)
        last = self.edges[(tokens + 1).clamp(max=self.n_tokens - 1)] - 1
        closed = torch.minimum(torch.maximum(closed, self.edges[tokens]), last)  # against rounding
        tail = (
            self.edges[-1] + (uniform.clamp(min=1e-300).log() / self.tail_log_ratio).floor().long()
        )
        return torch.where(tokens == self.n_tokens - 1, tail.clamp(max=MAX_COUNT), closed)

    def log_prob(self, counts: Tensor) -> Tensor:
        """Log p(count | its token), float32 nats, of the same shape as `counts`."""
        top = self.edges[-1]
        excess = (counts - top).clamp(min=0)
        tail = excess * self.tail_log_ratio + torch.log1p(-self.tail_log_ratio.exp())
        if not len(self.count_log_prob):
            return tail.float()
        closed = self.count_log_prob[counts.long().clamp(max=len(self.count_log_prob) - 1)]
        return torch.where(counts >= top, tail, closed).float()

    def _set_edges(self, edges: NDArray[np.int64]) -> None:
        """Lay out the buffers; until `fit`, closed bins are uniform and the tail halves."""
        if not (edges.ndim == 1 and len(edges) and edges.dtype == np.int64):
            raise ValueError(f"edges must be a list of whole numbers, got {edges!r}")
        if edges[0] != 0 or (np.diff(edges) <= 0).any() or edges[-1] > MAX_COUNT:
            raise ValueError(
                f"edges must start at 0, increase, and stay at or below {MAX_COUNT}; got "
                f"{edges.tolist()}"
            )
        lookup = np.searchsorted(edges, np.arange(MAX_COUNT + 1), side="right") - 1
        widths = np.diff(edges)
        self.register_buffer("edges", torch.from_numpy(edges.copy()))
        self.register_buffer("lookup", torch.from_numpy(lookup.astype(np.int32)))
        self.register_buffer("count_log_prob", torch.from_numpy(-np.log(np.repeat(widths, widths))))
        self.register_buffer("tail_log_ratio", torch.tensor(np.log(0.5), dtype=torch.float64))


class CountTokens(BinTokens):
    """One token a count, clipped: min(count, n_tokens - 1).

    Parameters
    ----------
    n_tokens
        Size of the vocabulary, 2 to 32,768.
    """

    def __init__(self, n_tokens: int = 32) -> None:
        _check_n_tokens(n_tokens)
        super().__init__(range(n_tokens))


class LogBinTokens(BinTokens):
    """Bins that widen by a constant ratio: with 1.5, from 0, 1, 2, 3, 4, 6, 9, 13, 19 … on.

    Parameters
    ----------
    n_tokens
        Size of the vocabulary, at least 2.
    ratio
        Quotient of neighbouring edges, above 1; where it is less than one count, a bin is one
        count.
    """

    def __init__(self, n_tokens: int = 16, ratio: float = 1.5) -> None:
        _check_n_tokens(n_tokens)
        if ratio <= 1:
            raise ValueError(f"ratio must be above 1, got {ratio}")
        edges = [0, 1]
        while len(edges) < n_tokens:
            edges.append(max(edges[-1] + 1, int(edges[-1] * ratio)))
        if edges[-1] > MAX_COUNT:
            raise ValueError(
                f"n_tokens={n_tokens} bins of ratio {ratio} pass the largest count {MAX_COUNT}: "
                "take fewer tokens or a smaller ratio"
            )
        super().__init__(edges)


class QuantileTokens(BinTokens):
    """Bins that hold equal shares of the training cells' non-zero counts, and one for zero.

    Bins that would divide one count are merged, so the fitted vocabulary can be smaller than asked.

    Parameters
    ----------
    n_tokens
        Largest size of the vocabulary, at least 2.
    """

    def __init__(self, n_tokens: int = 16) -> None:
        _check_n_tokens(n_tokens)
        super().__init__([0, 1])
        self._max_tokens = n_tokens
        self._fitted = False

    def settings(self) -> dict[str, Any]:
        """The size asked for: where the bins lie, the data decide."""
        return {"n_tokens": self._max_tokens}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the state that another of the same settings was fitted to; see `BinTokens`."""
        self._set_edges(state["edges"].numpy(force=True))  # where they lie, the data decided
        super().restore(state)
        self._fitted = True

    def fit(self, counts: NDArray[np.int16], total_counts: NDArray[np.integer[Any]]) -> None:
        """Place the edges at the quantiles of the training counts, then fit p(count | token)."""
        nonzero = np.sort(counts[counts > 0])
        if not len(nonzero):
            raise ValueError("cannot place quantile bins: the training cells hold no count above 0")
        n_bins = self._max_tokens - 1
        starts = nonzero[len(nonzero) * np.arange(1, n_bins) // n_bins]
        self._set_edges(np.unique(np.concatenate([[0, 1], starts])).astype(np.int64))
        self._fitted = True
        super().fit(counts, total_counts)

    def encode(self, counts: Tensor) -> Tensor:
        """Token ids, int64; raises ValueError before `fit`."""
        self._check_fitted()
        return super().encode(counts)

    @property
    def count_table(self) -> NDArray[Any]:
        """As that of `BinTokens`; raises ValueError before `fit`."""
        self._check_fitted()
        return super().count_table

    def _check_fitted(self) -> None:
        if not self._fitted:
            raise ValueError("QuantileTokens has no bins yet: call fit(counts, total_counts) first")


@compiled
def look_up(counts: NDArray[Any], table: NDArray[Any], tokens: NDArray[Any]) -> None:
    """Look every count up in the table, int32 [32,768]; all arrays are flat."""
    for i in range(len(counts)):
        tokens[i] = table[np.uint16(counts[i])]


def _check_n_tokens(n_tokens: int) -> None:
    if not 2 <= n_tokens <= MAX_COUNT + 1:
        raise ValueError(f"n_tokens must be in 2 … {MAX_COUNT + 1}, got {n_tokens}")
