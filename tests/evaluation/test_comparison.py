"""Real cells of a comparison are of one population, and there are as many as of a sample."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scdiff_data.evaluation.comparison import HeldOut


class Cells:
    """Cells whose every count says which they are, of experiments in turn."""

    def __init__(self, first: int, n_cells: int, experiments: list[str]) -> None:
        self.counts = np.arange(first, first + n_cells)[:, None]
        self.experiments = np.resize(experiments, n_cells)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, rows: slice) -> Any:
        metadata = {"experiment_id": self.experiments[rows]}
        return SimpleNamespace(expression=self.counts[rows], metadata=metadata)


def make_data(by: str, *, n_val: int = 40, n_test: int = 50) -> Any:
    return SimpleNamespace(
        recipe=SimpleNamespace(split=SimpleNamespace(by=by)),
        val_dataset=Cells(100, n_val, ["c"]),
        test_dataset=Cells(0, n_test, ["a", "b"]),
    )


@pytest.mark.parametrize(("n_cells", "n_compared"), [(10, 10), (100, 25)])
def test_held_out_experiments_are_halved_and_others_stand_beside(
    n_cells: int, n_compared: int
) -> None:
    held_out = HeldOut.take(make_data("experiment"), "test", n_cells)
    assert held_out.n_cells == n_compared
    assert held_out.pool.ravel().tolist() == list(range(2 * n_compared))  # test cells alone
    assert held_out.others is not None
    assert held_out.others.ravel().tolist() == list(range(100, 100 + n_compared))
    assert held_out.text == "2 experiments"
    assert [len(batch.expression) for batch in held_out.typed] == [50]
    assert HeldOut.take(make_data("experiment"), "val", n_cells).text == "1 experiment"


def test_of_held_out_cells_both_splits_are_one_population() -> None:
    held_out = HeldOut.take(make_data("cell"), "test", 100)
    assert held_out.n_cells == 45
    assert held_out.pool.ravel().tolist() == [*range(50), *range(100, 140)]
    assert held_out.others is None
    assert [len(batch.expression) for batch in held_out.typed] == [50, 40]
    assert held_out.text == "cells"
    few = HeldOut.take(make_data("cell", n_test=12), "test", 100)
    assert few.n_cells == 12  # a sample stands beside cells of the split that was asked for


def test_other_splits_by_a_column_are_named_by_it() -> None:
    held_out = HeldOut.take(make_data("donor", n_val=0), "test", 10)
    assert held_out.text == "values of donor"
    assert held_out.others is None  # there are no others
