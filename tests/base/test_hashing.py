"""Hashes order and draw: the same for ever, and independent of one another."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdiff_data.base import hashing
from scdiff_data.base.hashing import (
    digest,
    find_first,
    hash_file,
    keyed_hash,
    order_by_hash,
    pick_by_hash,
)

pick = partial(pick_by_hash, purpose="test")


def order(ids: list[str], *, seed: int) -> list[str]:
    column = pa.chunked_array([ids[:7], ids[7:]], pa.string())
    return [ids[place] for place in order_by_hash(column, seed=seed, purpose="test")]


ids = st.lists(st.text("ABCDEF0123456789", min_size=1, max_size=8), unique=True, max_size=60)


@given(ids=ids, more=ids, seed=st.integers(0, 100))
def test_the_order_of_experiments_does_not_move_when_the_catalog_grows(
    ids: list[str], more: list[str], seed: int
) -> None:
    grown = order(list(dict.fromkeys(more + ids)), seed=seed)
    assert [i for i in grown if i in set(ids)] == order(ids, seed=seed)


@given(ids=ids, few=st.integers(0, 30), more=st.integers(0, 30))
def test_a_larger_draw_is_a_superset_of_a_smaller_one(ids: list[str], few: int, more: int) -> None:
    small, large = (
        pick(ids, few, seed=1),
        pick(ids, few + more, seed=1),
    )
    assert len(small) == min(few, len(ids))
    assert set(small) <= set(large)
    assert np.array_equal(large, np.sort(large))


@given(ids=ids)
def test_of_equal_hashes_the_lesser_id_is_the_first(ids: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashing, "keyed_hash", lambda part, **_: np.array([len(i) for i in part]))
        assert order(ids, seed=0) == sorted(ids, key=lambda i: (len(i), i))


@given(texts=st.lists(st.text("AB", max_size=3), max_size=60), data=st.data())
def test_the_first_of_equal_texts_is_found_though_others_collide(
    texts: list[str], data: st.DataObject
) -> None:
    column = pa.chunked_array([texts[:9], texts[9:]], pa.string())
    way = data.draw(st.permutations(range(len(texts))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pd.util, "hash_array", lambda part, **_: np.array([len(i) for i in part]))
        found = find_first(column, np.array(way, np.int32))
        assert np.array_equal(find_first(column), find_first(column, np.arange(len(texts))))
    expected = {texts[place]: place for place in reversed(way)}
    assert sorted(expected.values()) == np.flatnonzero(found).tolist()


def test_another_seed_draws_others() -> None:
    cells = [str(i) for i in range(1000)]
    assert order(cells, seed=0) != order(cells, seed=1)
    shared = set(pick(cells, 100, seed=0)) & set(pick(cells, 100, seed=1))
    assert len(shared) < 30  # 10 expected


def test_the_purposes_of_a_hash_are_independent() -> None:
    cells = [str(i) for i in range(5000)]
    draw, split = (keyed_hash(cells, seed=0, purpose=p).astype(float) for p in ("draw", "split"))
    assert abs(np.corrcoef(draw, split)[0, 1]) < 0.05


def test_digests_depend_on_content_not_on_key_order(tmp_path: Path) -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": 2})
    (tmp_path / "x").write_bytes(b"abc")
    assert hash_file(tmp_path / "x") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
