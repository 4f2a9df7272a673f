"""A run's picture is written whole, the same for the same data, and for any data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiff_data.evaluation.figure import plot_report


def run() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    curves = {
        "step": [10, 20],
        "train/loss": [1.0, 0.9],
        "val/loss": [1.0, 0.95],
        "val/marginal": [1.1, 1.1],
    }
    counts = [rng.poisson(rng.gamma(1.0, 1.0, 30), (n, 30)) for n in (40, 25)]
    return {"curves": curves, "generated_counts": counts[0], "real_counts": counts[1]}


@pytest.mark.parametrize("make", [run], ids=["report"])
def test_the_same_data_give_the_same_bytes_and_nothing_else(tmp_path: Path, make: Any) -> None:
    plot_report(tmp_path / "new" / "a.png", **make())
    plot_report(tmp_path / "new" / "b.png", **make())
    first, second = sorted((tmp_path / "new").iterdir())
    assert first.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert first.read_bytes() == second.read_bytes()


def test_a_report_without_a_validation_or_with_empty_cells_draws(tmp_path: Path) -> None:
    empty: dict[str, list[float]] = {name: [] for name in run()["curves"]}
    silent = {"generated_counts": np.zeros((3, 30), int), "real_counts": np.zeros((2, 30), int)}
    plot_report(tmp_path / "report.png", curves=empty, **silent)
    assert (tmp_path / "report.png").exists()
