"""What Lightning puts in a sampler's place keeps the cells, or is refused."""

from typing import Any

import pytest
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from lightning.pytorch.overrides.distributed import UnrepeatedDistributedSamplerWrapper
from torch.utils.data import DistributedSampler, SequentialSampler, WeightedRandomSampler

from scdiff_data.sampling import CellSampler, UndividedSampler, adopt_sampler

SIZES: dict[str, Any] = {"seed": 3, "window_size": 40, "run_size": 4}


def make(**settings: Any) -> CellSampler:
    sampler = CellSampler(100, 8, **(SIZES | settings))
    sampler.set_epoch(2)
    return sampler


def rows_of(sampler: CellSampler) -> list[list[int]]:
    return [rows.tolist() for rows in sampler]


def test_a_sampler_of_ours_stays_and_to_predict_leaves_no_cell_out() -> None:
    own = make()
    for given in (own, UndividedSampler(own)):
        assert adopt_sampler(given, None, is_built_again=False) is own
        all_cells = rows_of(adopt_sampler(given, own, is_built_again=True))
        assert all_cells[:12] == rows_of(own)
        assert sorted(row for rows in all_cells for row in rows) == list(range(100))


@pytest.mark.parametrize("wrap", [DistributedSamplerWrapper, UnrepeatedDistributedSamplerWrapper])
def test_ranks_are_those_that_lightning_names(wrap: Any) -> None:
    own = make()
    is_predicting = wrap is UnrepeatedDistributedSamplerWrapper
    for rank in range(3):
        given = wrap(UndividedSampler(own), num_replicas=3, rank=rank, shuffle=False)
        adopted = adopt_sampler(given, own, is_built_again=True)
        expected = make(n_ranks=3, rank=rank, drop_last=not is_predicting)
        assert rows_of(adopted) == rows_of(expected)


def test_each_rank_gets_cells_to_predict_where_one_would_have_a_single_batch() -> None:
    own = CellSampler(5, 100, shuffle=False, drop_last=False)
    for rank in range(3):
        given = UnrepeatedDistributedSamplerWrapper(
            UndividedSampler(own), num_replicas=3, rank=rank, shuffle=False
        )
        adopted = adopt_sampler(given, own, is_built_again=True)
        assert rows_of(adopted) == [list(range(rank, 5, 3))]


def test_a_sequential_sampler_means_the_order_of_the_rows() -> None:
    adopted = adopt_sampler(SequentialSampler(range(100)), make(), is_built_again=True)
    assert rows_of(adopted) == [list(range(at, at + 8)) for at in range(0, 96, 8)]


@pytest.mark.parametrize(
    ("given", "own"),
    [
        (WeightedRandomSampler([1.0] * 100, 100), make()),
        (SequentialSampler(range(100)), None),
        (DistributedSampler(range(100), num_replicas=1, rank=0), None),
        (None, make()),
    ],
)
def test_others_are_refused(given: Any, own: CellSampler | None) -> None:
    with pytest.raises(ValueError, match=f"from a CellSampler, got {type(given).__name__}"):
        adopt_sampler(given, own, is_built_again=own is not None)
