"""The reverse process: from masked genes to a cell, a few looks at a time.

Three samplers; none argmaxes, and none prefers a gene for being sure: revealing the most confident
first would write the zeros first.

    ancestral   from hidden fraction t to s, each hidden look is revealed with probability (t - s)/t
    fixed       as ancestral, but every cell reveals as many looks at a step, in a random order
    remask      as ancestral, but some revealed looks are hidden again, and so can be mended
                (ReMDM, arXiv:2503.00307)

Shapes: b cells of a batch, g genes, v tokens, l looks of a gene, n genes being revealed.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from scdiff_data.diffusion.process import N_LOOKS, cosine_grid, hide_tokens

Sampler = Literal["ancestral", "fixed", "remask"]
"""A sampler, see the top of this file."""

_HIDDEN_AGAIN = 0.1
"""Of the largest share of revealed looks that a step can hide again and stay on the schedule."""


def guide(conditional_nv: Tensor, unconditional_nv: Tensor, *, guidance: float) -> Tensor:
    """Logits of the guided prediction p ∝ p_conditional^w p_unconditional^(1-w), w = `guidance`.

    Taken over each gene's tokens before anything is unmasked. At 1 it is the conditional
    prediction, at 0 the unconditional one; above 1 the condition is exaggerated.
    """
    conditional_nv = conditional_nv.log_softmax(-1)
    return conditional_nv.lerp(unconditional_nv.log_softmax(-1), 1 - guidance)


def sample_tokens(
    denoise: Callable[[Tensor, Tensor], Tensor],
    tokens_bg: Tensor,
    *,
    mask_id: int,
    steps: int,
    generator: torch.Generator,
    sampler: Sampler = "ancestral",
) -> Tensor:
    """Fill the masked genes of `tokens_bg`, on the cosine grid; the others stay what they are.

    Parameters
    ----------
    denoise
        Takes what is seen of the tokens and which places to read, both [b, g], to those places'
        logits [n, v], `steps` times.
    tokens_bg
        Int64, on the generator's device; all masked for new cells.
    mask_id, generator
        The mask's token; what every random choice is drawn from.
    steps
        32 to 64 come close to the exact sampler; 1 makes genes independent.
    sampler
        See the top of this file.
    """
    if sampler not in get_args(Sampler):
        raise ValueError(f"sampler must be one of {get_args(Sampler)}, got {sampler!r}")
    is_hidden_lbg = is_free_lbg = (tokens_bg == mask_id).expand(N_LOOKS, -1, -1)
    rand = partial(torch.rand, generator=generator, device=generator.device)
    # A look is hidden while its place is below the hidden fraction: of those at t, s/t are at s.
    place_lbg = rand(is_free_lbg.shape)
    if sampler == "fixed":
        place_lbg = _rank_free(place_lbg, is_free_lbg)
    place_lbg = place_lbg.masked_fill(~is_free_lbg, 1.0)
    for fraction, next_fraction in pairwise(cosine_grid(steps)):
        stays_lbg = place_lbg < next_fraction
        if sampler == "remask" and fraction < 1:
            again = _HIDDEN_AGAIN * min(1.0, next_fraction / (1 - fraction))
            # So that the next fraction is hidden, whatever is hidden again: ReMDM's equation 5.
            stays = (next_fraction - again * (1 - fraction)) / fraction
            chance_lbg = torch.where(is_hidden_lbg, stays, again).masked_fill(~is_free_lbg, 0.0)
            stays_lbg = rand(chance_lbg.shape) < chance_lbg
        is_told_bg = (is_hidden_lbg & ~stays_lbg).any(0) & (tokens_bg >= mask_id)
        logits_nv = denoise(tokens_bg, is_told_bg).float()
        # A whole token is drawn; of one whose level stays hidden, hide_tokens forgets it.
        logits_nv[:, :1].masked_fill_(tokens_bg[is_told_bg][:, None] > mask_id, -torch.inf)
        sums_nv = logits_nv.softmax(-1).cumsum(-1)  # `multinomial` draws v numbers, and this one
        if sums_nv[:, -1].isnan().any():
            raise ValueError("the model's logits are no numbers: it diverged, or guidance is none")
        drawn_n = (sums_nv <= rand(len(sums_nv), 1) * sums_nv[:, -1:]).sum(-1)
        tokens_bg = tokens_bg.masked_scatter(is_told_bg, drawn_n)
        tokens_bg = hide_tokens(tokens_bg, stays_lbg.sum(0), mask_id=mask_id)
        is_hidden_lbg = stays_lbg
    return tokens_bg


def _rank_free(score_lbg: Tensor, is_free_lbg: Tensor) -> Tensor:
    """Each free look's place, by score, in the order of its cell's free looks, in [0, 1)."""
    score_bn = score_lbg.masked_fill(~is_free_lbg, 2.0).transpose(0, 1).flatten(1)
    rank_bn = score_bn.argsort(-1).argsort(-1)
    n_free_b1 = is_free_lbg.sum((0, 2))[:, None].clamp(min=1)
    return (rank_bn / n_free_b1).view(len(rank_bn), N_LOOKS, -1).transpose(0, 1)
