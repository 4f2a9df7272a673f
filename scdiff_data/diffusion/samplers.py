"""The reverse process: from masked genes to a cell, a few genes at a time.

Three samplers; none argmaxes, and none prefers a gene for being sure: revealing the most confident
first would write the zeros first.

    ancestral   from masked fraction t to s, each masked gene is revealed with probability (t - s)/t
    fixed       as ancestral, but every cell reveals as many genes at a step, in a random order
    remask      as ancestral, but some revealed genes are masked again, and so can be mended
                (ReMDM, arXiv:2503.00307)

Shapes: b cells of a batch, g genes, v tokens, n genes being revealed.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from scdiff_data.diffusion.process import cosine_grid

Sampler = Literal["ancestral", "fixed", "remask"]
"""A sampler, see the top of this file."""


_REMASKED = 0.1
"""Of the largest share of revealed genes that a step can mask again and stay on the schedule."""


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
        Takes tokens with masks and which places to read, both [b, g], to those places' logits
        [n, v], at most `steps` times.
    tokens_bg
        Int64, on the generator's device; all masked for new cells.
    mask_id
        The mask's token.
    steps
        32 to 64 come close to the exact sampler; 1 makes genes independent.
    generator
        Of every random choice.
    sampler
        See the top of this file.
    """
    if sampler not in get_args(Sampler):
        raise ValueError(f"sampler must be one of {get_args(Sampler)}, got {sampler!r}")
    is_free_bg = tokens_bg == mask_id
    place_bg = _random_places(is_free_bg, generator)
    for fraction, next_fraction in pairwise(cosine_grid(steps)):
        chance_bg = torch.rand(tokens_bg.shape, generator=generator, device=generator.device)
        is_masked_bg = tokens_bg == mask_id
        remasked = 0.0
        if sampler == "remask" and fraction < 1:
            remasked = _REMASKED * min(1.0, next_fraction / (1 - fraction))
        # So that the next fraction is masked, whatever is masked again: ReMDM's equation 5.
        revealed = 1 - (next_fraction - remasked * (1 - fraction)) / fraction
        if sampler == "fixed":
            revealed_bg = is_masked_bg & (place_bg >= next_fraction)
        else:
            revealed_bg = is_masked_bg & (chance_bg < revealed)
        again_bg = is_free_bg & ~is_masked_bg & (chance_bg < remasked)
        logits_nv = denoise(tokens_bg, revealed_bg)
        tokens_bg = tokens_bg.masked_fill(again_bg, mask_id)
        if len(logits_nv):
            probability_nv = logits_nv.float().softmax(-1)
            drawn_n = probability_nv.multinomial(1, generator=generator)[:, 0]
            tokens_bg = tokens_bg.masked_scatter(revealed_bg, drawn_n)
    return tokens_bg


def _random_places(is_free_bg: Tensor, generator: torch.Generator) -> Tensor:
    """Each free gene's place in a random order of its cell's free genes, in [0, 1)."""
    score_bg = torch.rand(is_free_bg.shape, generator=generator, device=generator.device)
    rank_bg = score_bg.masked_fill(~is_free_bg, 2.0).argsort(-1).argsort(-1)
    return rank_bg / is_free_bg.sum(-1, keepdim=True).clamp(min=1)
