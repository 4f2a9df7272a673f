"""Ids read when somebody looks, and then as an array of str would be."""

import pickle

import numpy as np
import pytest

from scdiff_data.loading.lazy_strings import LazyStrings

NAMES = np.array(["PBMC01_AAA", "PBMC01_ÄÖ", "x"])


def texts() -> LazyStrings:
    return LazyStrings(3, lambda: np.char.encode(NAMES, "utf-8"))


def test_nothing_is_read_before_somebody_looks_and_then_once() -> None:
    calls = []

    def read() -> np.ndarray:
        calls.append(1)
        return np.char.encode(NAMES, "utf-8")

    lazy = LazyStrings(3, read)
    assert len(lazy) == 3
    assert not calls
    assert lazy[0] == "PBMC01_AAA"
    assert list(lazy) == NAMES.tolist()
    assert len(calls) == 1


def test_it_works_as_an_array_of_str() -> None:
    assert texts()[1] == "PBMC01_ÄÖ"
    assert texts()[-1] == "x"
    assert np.array_equal(texts()[:2], NAMES[:2])
    assert np.array_equal(texts()[[2, 0]], NAMES[[2, 0]])
    assert np.asarray(texts()).dtype.kind == "U"
    assert np.array_equal(np.concatenate([texts(), texts()]), np.r_[NAMES, NAMES])
    assert texts().tolist() == NAMES.tolist()
    assert (texts() == NAMES).all()
    assert "PBMC01_AAA" in repr(texts())
    with pytest.raises(IndexError):
        texts()[3]


def test_pickled_it_has_been_read() -> None:
    copy = pickle.loads(pickle.dumps(texts()))
    assert list(copy) == NAMES.tolist()
