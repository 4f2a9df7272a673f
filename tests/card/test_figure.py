"""The picture of a card."""

from collections import Counter
from pathlib import Path

import numpy as np

from scdiff_data import describe
from scdiff_data.card import cells, figure


def test_the_same_directory_is_drawn_as_the_same_bytes(pbmc_dir: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        describe(pbmc_dir).draw(tmp_path / name)
    content = (tmp_path / "a.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "b.png").read_bytes()


def test_any_cells_can_be_drawn(pbmc_dir: Path, tmp_path: Path) -> None:
    facts = describe(pbmc_dir).facts
    alone = cells.Cells(n_cells=1, n_in_table=1, experiments=Counter(a=1))
    alone.counts.add(nothing := np.array([0]))
    alone.genes.add(nothing)
    figure.plot_cells(tmp_path / "alone.png", facts, alone)  # one cell, no label, no count
    many = cells.Cells(n_cells=300, n_in_table=3000)
    many.experiments.update({f"SRX{i}": 300 - i for i in range(300)})
    many.values["cell_type"] = Counter(
        {f"{i} a name that is far too long to show": 1 for i in range(99)}
    )
    many.counts.add(np.arange(300) * 1000)
    many.genes.add(np.arange(300))
    figure.plot_cells(tmp_path / "many.png", facts, many)
    assert (tmp_path / "many.png").stat().st_size > 10_000
