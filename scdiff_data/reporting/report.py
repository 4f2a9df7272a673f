"""A data report: what is in a prepared directory, as a page that anyone can open."""

import json
from collections.abc import Mapping
from pathlib import Path

from scdiff_data.base import describe_size, write_aside
from scdiff_data.reporting.page import show_cards, show_page, show_text
from scdiff_data.reporting.sample import sample_cells
from scdiff_data.reporting.sections import (
    tell_batches,
    tell_cells,
    tell_genes,
    tell_labels,
    tell_losses,
    tell_settings,
)
from scdiff_data.reporting.survey import survey_cells
from scdiff_data.shards import check_shards
from scdiff_data.store import Manifest, read_experiments
from scdiff_data.telling import Progress


def write_data_report(data_dir: str | Path, path: str | Path | None = None) -> Path:
    """Write a page about a prepared directory: its cells, losses, labels, batches and genes.

    The page is one file of HTML, with its pictures in it: it asks for nothing, neither files nor
    network. The same directory gives the same page. However many cells there are, it takes memory
    for a few thousand: the others are counted as their table passes by.

    Parameters
    ----------
    data_dir
        A prepared directory.
    path
        Where the page goes, a file or a folder; None: `report.html` in that directory.

    Returns
    -------
    path
        The page.

    Raises
    ------
    FileNotFoundError
        If the directory was not prepared.
    ManifestError
        If its tables, genes or shards are damaged.
    OSError
        If the page cannot be written there.
    """
    manifest = Manifest.read(data_dir)
    directory = manifest.directory
    check_shards(manifest, full=False)
    manifest.check_files(directory.metadata, full=True)  # read as a whole anyway
    chosen = (directory.hvg_info, directory.hvg_figure)
    for entry in manifest.files:
        if directory.path / entry.path in chosen:
            manifest.check_file(entry, full=True)
    experiments = read_experiments(directory.experiments)
    genes = json.loads(directory.hvg_info.read_text("utf-8"))
    picture = directory.hvg_figure.read_bytes()
    with Progress("survey"):
        survey, sample = survey_cells(manifest), sample_cells(manifest)
    manifest.check_unchanged()

    n_cells = sum(manifest.n_cells.values())
    cards = [
        ("cells", f"{n_cells:,}"),
        ("experiments", f"{len(survey.experiments.n_of):,}"),
        ("genes chosen", f"{manifest.genes.n_chosen:,}"),
        ("counts a cell, median", f"{survey.total_counts.quantile(0.5):,}"),
        ("genes a cell, median", f"{survey.n_genes.quantile(0.5):,}"),
        ("on disk", describe_size(sum(entry.size for entry in manifest.files))),
    ]
    sections = [
        ("What was drawn", tell_losses(manifest, experiments)),
        ("Depth and genes", tell_cells(manifest, survey)),
        ("Splits and labels", tell_labels(manifest, survey)),
        ("Batch effects", tell_batches(survey, sample)),
        ("Chosen genes", tell_genes(genes, picture)),
        ("Settings and files", tell_settings(manifest)),
    ]
    source = manifest.recipe["source"]
    kind = source.get("source", "") if isinstance(source, Mapping) else ""
    title = directory.path.resolve().name
    lead = show_text(f"Single-cell counts prepared by scdiff_data from the source {kind}.", "small")
    target = directory.report if path is None else Path(path)
    if target.is_dir():
        target = target / directory.report.name
    with write_aside(target) as aside:
        aside.write_text(show_page(title, lead + show_cards(cards), sections), encoding="utf-8")
    return target
