"""Ids read when somebody looks, and then as an array of str would be."""

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.data import extract_batch_size

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
    read = pickle.loads(pickle.dumps(texts()))
    assert list(read) == NAMES.tolist()


def test_whoever_looks_for_batch_sizes_or_moves_batches_reads_nothing() -> None:
    def read() -> Any:
        raise AssertionError("somebody read the ids")

    texts = LazyStrings(3, read)
    batch = (torch.zeros(3, 2), {"cell_id": texts})
    assert extract_batch_size(batch) == 3
    assert move_data_to_device(batch, torch.device("cpu"))[1]["cell_id"] is texts
    assert copy.deepcopy(texts) is texts


def test_loops_and_tables_take_them_as_texts() -> None:
    assert list(texts()) == [text for text in texts()] == NAMES.tolist()  # noqa: C416
    assert pd.DataFrame({"id": texts()})["id"].tolist() == NAMES.tolist()
    assert pd.Index(texts()).tolist() == NAMES.tolist()
    assert "PBMC01_ÄÖ" in texts()
