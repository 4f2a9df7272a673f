"""Runs of rows are fetched when they are asked for, and cost little when they are there."""

from pathlib import Path

import numpy as np

from scdiff_data.base import DiskWatch, expect_random, map_file
from scdiff_data.shards.hints import ask_for_rows
from support.disk import count_bytes_read, drop_from_cache


def test_a_run_is_fetched_as_a_whole_unless_it_is_in_memory(tmp_path: Path) -> None:
    path, n_bytes = tmp_path / "rows", 24 << 20  # more than any system reads ahead
    path.write_bytes(np.random.default_rng(0).bytes(n_bytes))
    drop_from_cache(path)
    rows = map_file(path)
    expect_random(rows)
    run = (np.array([[rows.ctypes.data]]), np.array([0]), np.array([n_bytes // 4096 - 1]))
    watch = DiskWatch()
    with count_bytes_read() as read:
        ask_for_rows(*run, n_bytes // 4096, 4096, False, watch)
        assert read() == n_bytes
        assert watch.asks_for_all
        ask_for_rows(*run, n_bytes // 4096, 4096, False, watch)
        assert read() == n_bytes
        assert not watch.asks_for_all
