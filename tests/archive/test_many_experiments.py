"""Many experiments in one file: read together, each as if it were alone."""

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scdiff_data.archive import ArchiveReport, QualityFilter, write_archives
from scdiff_data.errors import CountError
from scdiff_data.reading import GeneAxis
from support.h5ad import GENES, LAYOUTS, counts_of, write_source

NAMES = ["A", "B", "C"]
AXIS = GeneAxis(tuple(GENES[3:]), tuple(GENES[3:]))


def convert(
    source: Path, folder: Path, names: list[str], of_cell: np.ndarray, **changes: Any
) -> dict[str, ArchiveReport | CountError]:
    """Convert some of the experiments of a file, of which every seventh cell is not looked at."""

    def assign(obs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        places = np.array([*(names.index(n) if n in names else -1 for n in NAMES), -1])
        return places[of_cell], np.arange(len(obs)) % 7 > 0

    known: dict[str, Any] = {
        "axis": AXIS,
        "quality": QualityFilter(min_genes=3),
        "max_cells": 9,
        "seed": 0,
        "max_memory": 1 << 30,
        "assign": assign,
        "n_threads": 2,
    }
    return write_archives(source, {n: folder / f"{n}.h5ad" for n in names}, **known | changes)


@settings(max_examples=25)
@given(
    of_cell=st.lists(st.integers(-1, 2), min_size=60, max_size=60).map(np.array),
    layout=st.sampled_from(sorted(LAYOUTS)),
    max_memory=st.sampled_from([1 << 10, 1 << 30]),
    is_shuffled=st.booleans(),
)
def test_experiments_made_together_are_those_made_alone_to_the_last_byte(
    tmp_path_factory: pytest.TempPathFactory,
    of_cell: np.ndarray,
    layout: str,
    max_memory: int,
    is_shuffled: bool,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    genes = GENES[::-1] if is_shuffled else GENES
    source = write_source(folder / "s.h5ad", LAYOUTS[layout](counts_of()), genes)
    together = convert(source, folder / "together", NAMES, of_cell, max_memory=max_memory)
    for name in NAMES:
        alone = convert(source, folder / "alone", [name], of_cell)
        assert alone[name] == together[name]
        paths = [folder / how / f"{name}.h5ad" for how in ("together", "alone")]
        is_there = [path.exists() for path in paths]
        assert is_there[0] == is_there[1]
        if all(is_there):
            assert paths[0].read_bytes() == paths[1].read_bytes()
    assert not set(folder.glob("*/*")) - set(folder.glob("*/?.h5ad"))


@pytest.mark.filterwarnings("ignore:.* names are not unique")
def test_genes_that_repeat_are_summed_in_each_experiment(tmp_path: Path) -> None:
    counts = counts_of()
    counts[4, :2] = 32_000, 900
    genes = ["ENSG003", *GENES[:2], *GENES[3:]]
    source = write_source(tmp_path / "s.h5ad", LAYOUTS["csr"](counts), genes)
    settings = {"quality": QualityFilter(), "max_cells": None}
    reports = convert(source, tmp_path, NAMES, np.arange(60) % 3, **settings)
    assert [r.n_genes_duplicated for r in reports.values() if isinstance(r, ArchiveReport)] == [
        1
    ] * 3
    cells = ad.read_h5ad(tmp_path / "B.h5ad")
    archived = cells.obs.get("archived_counts", cells.obs["total_counts"])
    assert archived.tolist() == cells.X.sum(axis=1).A1.tolist()
    of_b = cells.to_df()["ENSG003"]
    expected = np.minimum(counts[:, 0] + counts[:, 3], 32_767)
    assert of_b.tolist() == [expected[i] for i in range(60) if i % 3 == 1 and i % 7]
    assert reports["B"].n_saturated == int(counts[4, 0] + counts[4, 3] > 32_767)


@pytest.mark.filterwarnings("ignore:.* names are not unique")
def test_a_name_may_repeat_in_another_experiment_but_not_in_its_own(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s.h5ad", LAYOUTS["csr"](counts_of()))
    cells = ad.read_h5ad(source)
    names = np.array([f"cell{i // 3}" for i in range(60)])
    names[5] = names[2]  # both of C
    cells.obs_names = names
    cells.write_h5ad(source)
    outcomes = convert(source, tmp_path, NAMES, np.arange(60) % 3)
    assert str(outcomes["C"]) == "s.h5ad has the cell name 'cell0' twice: names must be unique"
    assert isinstance(outcomes["A"], ArchiveReport)
    assert set(tmp_path.glob("?.h5ad")) == {source, tmp_path / "A.h5ad", tmp_path / "B.h5ad"}


def test_counts_are_rounded_where_they_are(tmp_path: Path) -> None:
    counts = counts_of()
    counts[4, 5] = counts[7, 6] = 2.00001
    for layout in LAYOUTS:
        source = write_source(tmp_path / "s.h5ad", LAYOUTS[layout](counts))
        settings = {"quality": QualityFilter(), "max_cells": None}
        reports = convert(source, tmp_path, NAMES, np.arange(60) % 3, **settings)
        assert [r.n_rounded for r in reports.values()] == [0, 1, 0]  # the other is not looked at
