"""What Lightning puts in a sampler's place when it builds a loader again, and what it means.

    it puts                        it wants                            a loader of ours gives
    the loader's own sampler       to predict                          every cell, in its order
    a DistributedSampler           each rank its part                  each rank its part
    an UnrepeatedDistributed…      that, to predict                    every cell once over all
    a SequentialSampler            to overfit: always the same cells   the order of the rows

Whatever else is put there gives rows one by one, in an order that cannot be resumed: refused.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler, Sampler, SequentialSampler

from scdiff_data.sampling.sampler import CellSampler


class UndividedSampler(Sampler[NDArray[np.int64]]):
    """A `CellSampler` whose ranks nobody has named yet; works as that does.

    It is no `DistributedSampler`, so that Lightning and Fabric name the ranks, which they alone
    know where ranks hold parts of one model. Where they do not, the process group does.

    Parameters
    ----------
    cells
        The sampler.
    """

    def __init__(self, cells: CellSampler) -> None:
        self.cells = cells

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return iter(self.cells)

    def __len__(self) -> int:
        """Cells: Lightning asks whether there are enough for all ranks."""
        return self.cells.n_cells

    def __repr__(self) -> str:
        return repr(self.cells)

    def __getattr__(self, name: str) -> Any:
        if name == "cells":  # while it is unpickled
            raise AttributeError(name)
        return getattr(self.cells, name)


def adopt_sampler(
    sampler: Sampler[Any] | None, own: CellSampler | None, *, is_built_again: bool
) -> CellSampler:
    """The sampler that a loader goes by, of the one that it is given.

    Parameters
    ----------
    sampler
        The loader's, or what Lightning gives instead.
    own
        The loader's before it was built again.
    is_built_again
        Whether it was.

    Raises
    ------
    ValueError
        If the sampler gives no batches of ours.
    """
    found = sampler.cells if isinstance(sampler, UndividedSampler) else sampler
    if isinstance(found, CellSampler):
        # A loader with this sampler is built again for prediction alone.
        return found.replace(drop_last=False) if is_built_again else found
    if own is not None and isinstance(found, DistributedSampler):
        ranks = {"n_ranks": found.num_replicas, "rank": found.rank}
        names = {kind.__name__ for kind in type(found).__mro__}
        is_predicting = "UnrepeatedDistributedSampler" in names
        divided = own.replace(**ranks, drop_last=own.drop_last and not is_predicting)
        if not is_predicting:  # a state may have been restored before
            divided.place, own.place = own.place, None
        return divided
    if own is not None and isinstance(found, SequentialSampler):
        return own.replace(shuffle=False, classes=None)
    raise ValueError(
        f"a ResumableLoader takes its batches from a CellSampler, got {type(found).__name__}: with "
        "other samplers it could not go on where it was left. CellSampler has shuffle, classes "
        "and ranks; for another order use DataLoader(dataset, sampler=…, collate_fn=collate)"
    )
