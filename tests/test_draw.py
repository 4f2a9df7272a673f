import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data.base.hashing import draw_cells, keyed_hash, order_experiments
from scdiff_data.pipeline.split import Split

ids = st.lists(st.text("ABCDEF0123456789", min_size=1, max_size=8), unique=True, max_size=60)


@settings(deadline=None)
@given(ids=ids, more=ids, seed=st.integers(0, 100))
def test_the_order_of_experiments_does_not_move_when_the_catalog_grows(
    ids: list[str], more: list[str], seed: int
) -> None:
    grown = order_experiments(list(dict.fromkeys(more + ids)), seed=seed)
    assert [i for i in grown if i in set(ids)] == order_experiments(ids, seed=seed)


@settings(deadline=None)
@given(ids=ids, few=st.integers(0, 30), more=st.integers(0, 30))
def test_a_larger_draw_is_a_superset_of_a_smaller_one(ids: list[str], few: int, more: int) -> None:
    small, large = draw_cells(ids, few, seed=1), draw_cells(ids, few + more, seed=1)
    assert len(small) == min(few, len(ids))
    assert set(small) <= set(large)
    assert np.array_equal(large, np.sort(large))


def test_another_seed_draws_others() -> None:
    cells = [str(i) for i in range(1000)]
    assert order_experiments(cells, seed=0) != order_experiments(cells, seed=1)
    shared = set(draw_cells(cells, 100, seed=0)) & set(draw_cells(cells, 100, seed=1))
    assert len(shared) < 30  # 10 expected


def test_the_purposes_of_a_hash_are_independent() -> None:
    cells = [str(i) for i in range(5000)]
    draw, split = (keyed_hash(cells, seed=0, purpose=p).astype(float) for p in ("draw", "split"))
    assert abs(np.corrcoef(draw, split)[0, 1]) < 0.05


def test_fractions_hold_in_expectation_and_for_ever() -> None:
    cells = [str(i) for i in range(20_000)]
    rule = Split(by="cell", val=0.1, test=0.2)
    splits = rule.assign_by_hash(cells, seed=3)
    shares = np.bincount(splits) / len(cells)
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.01)
    assert np.array_equal(rule.assign_by_hash(cells[500:700], seed=3), splits[500:700])


def test_named_values_decide_without_case() -> None:
    rule = Split.from_mapping({"by": "tissue", "test": ["Lung"]})
    assert rule.assign_by_value(["lung", " LUNG ", "blood", None]).tolist() == [2, 2, 0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by": "cell", "val": 1.0}, r"fractions that sum to less than 1, got 1\.0"),
        ({"by": "experiment", "val": 0.5, "test": 0.5}, "sum to less than 1"),
        ({"by": "cell", "val": ["a"]}, r"takes fractions, got val=\['a'\].*split\.by=<column>"),
        ({"by": "tissue", "val": 0.1}, r"lists values of the column 'tissue', got 0\.1"),
        ({"by": "tissue", "val": ["a"], "test": ["a"]}, "both name a value of tissue"),
        ({"bye": "cell"}, r"split has no setting \['bye'\]; it has by, val, test"),
    ],
)
def test_a_wrong_split_is_a_clear_error(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Split.from_mapping(settings)
