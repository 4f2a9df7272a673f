"""Which ranks share the cells, as whoever knows them says it.

A DataModule is told by its Trainer. A bare loader is told by Lightning, which builds it again
with a sampler of its own that names the ranks, and in a plain loop by torch's process group.
"""

import torch.distributed


def find_group_ranks() -> tuple[int, int]:
    """How many ranks torch's process group has, and which one this is; without a group 1 and 0."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size(), torch.distributed.get_rank()
    return 1, 0


def check_ranks(n_ranks: int | None, rank: int | None) -> None:
    """Raise ValueError unless both are given or none, and `rank` is one of `n_ranks`."""
    if n_ranks is None and rank is None:
        return
    if n_ranks is None or rank is None:
        raise ValueError(
            f"the number of ranks and the rank belong together, got {n_ranks} and {rank}: give "
            "both, or none to read them from torch's process group"
        )
    if n_ranks < 1 or not 0 <= rank < n_ranks:
        raise ValueError(f"the rank must be one of 0 … n - 1 of n ranks, got {rank} of {n_ranks}")
