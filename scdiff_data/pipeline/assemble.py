"""From archives to a finished directory: cells, genes, shards, and last the manifest."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scdiff_data.base import (
    FileEntry,
    Workers,
    describe_file,
    describe_size,
    digest,
    hash_file,
    write_json,
)
from scdiff_data.executors import Crew
from scdiff_data.genes import GeneChoice, TrainingGenes, choose_genes, plot_hvgs, sum_elsewhere
from scdiff_data.pipeline.cell_table import draw_cells
from scdiff_data.pipeline.fill_archive import FilledArchive
from scdiff_data.reading import GeneAxis
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.shards import ShardGenes, choose_format, write_shards
from scdiff_data.sources import Rows, group_experiments
from scdiff_data.store import (
    DataDirectory,
    GeneCounts,
    Manifest,
    describe_losses,
    have_failed,
    list_experiments,
    sum_dropped,
)
from scdiff_data.telling import Progress, tell

logger = logging.getLogger(__name__)


def assemble(
    recipe: Recipe,
    directory: DataDirectory,
    candidates: pa.Table,
    filled: FilledArchive,
    options: PrepareOptions,
    crew: Crew | None = None,
) -> Manifest:
    """Draw the cells of the archives, choose genes, write shards and the manifest.

    Parameters
    ----------
    recipe
        What is wanted.
    directory
        Where the archives are, and everything goes.
    candidates
        The catalog's rows that the draw is from.
    filled
        The reference genes, and what became of the experiments tried.
    options
        How it is done.
    crew
        Who sums, sorts and writes elsewhere; None does it here.

    Raises
    ------
    ValueError
        If the settings contradict the data.
    """
    axis = filled.axis
    files = filled.files
    n_threads = options.n_threads if crew is None else crew.n_threads or options.n_threads
    archives = directory.archives_of(files)
    cells = draw_cells(recipe, directory, archives, Rows(candidates))
    experiments = list_experiments(filled.records, cells.count_drawn)
    write_json(directory.experiments, experiments)

    checksums = {name: file.sha256 for name, file in files.items()}
    splits = {name: cells.splits_of(name) for name in cells.rows}
    choice, n_expressing = choose_from(recipe, directory, candidates, filled, splits, options, crew)
    del splits
    write_choice(recipe, axis, choice, info=directory.hvg_info, figure=directory.hvg_figure)
    _report_absent(choice)

    words = {name: list(found) for name, found in cells.words.items()}
    shards_key = digest([recipe.digest, checksums, list(choice.ids), words])
    known = choice.indices[choice.indices >= 0]
    n_values = int(n_expressing[known].sum())
    genes = ShardGenes(
        indices=choice.indices, ids=choice.ids, symbols=choice.symbols, n_values=n_values
    )
    shard_format = choose_format(
        recipe.shard_format, n_cells=len(cells), n_genes=len(choice.ids), n_values=n_values
    )
    with (
        Progress("sort", "cells", len(cells)) as are_sorted,
        Progress("shards", "cells", len(cells)) as are_written,
    ):
        shards = write_shards(
            directory,
            cells,
            archives,
            genes,
            labels=recipe.labels,
            shard_size=recipe.shard_size,
            shard_format=shard_format,
            fallback_min_genes=recipe.fallback_min_genes,
            key=shards_key,
            n_threads=n_threads,
            max_memory=options.max_memory,
            crew=crew,
            report_sorted=are_sorted.add,
            report_cells=are_written.add,
        )
    written = [
        *(directory.catalog, directory.genes, directory.experiments, directory.cells),
        *map(directory.statistics, cells.rows),
        *(directory.hvg_info, directory.hvg_figure),
        *shards,
    ]
    manifest = Manifest(
        data_dir=directory.path,
        recipe=recipe.settings(),
        recipe_digest=recipe.digest,
        catalog_digest=hash_file(directory.catalog),
        genes=GeneCounts(
            n_reference=len(axis),
            reference_digest=axis.digest,
            n_chosen=len(choice.indices),
            n_absent=choice.n_absent,
            chosen_digest=digest(list(choice.ids)),
        ),
        n_cells=cells.n_cells,
        n_experiments=cells.n_experiments,
        shards_key=shards_key,
        shard_format=shard_format,
        dropped=sum_dropped(experiments),
        files=(*files.values(), *_describe_files(written, directory, n_threads)),
    )
    manifest.write()
    _tell(manifest, experiments)
    return manifest


def choose_from(
    recipe: Recipe,
    directory: DataDirectory,
    candidates: pa.Table,
    filled: FilledArchive,
    splits: Mapping[str, NDArray[np.int8]],
    options: PrepareOptions,
    crew: Crew | None = None,
) -> tuple[GeneChoice, NDArray[np.int64]]:
    """The genes, chosen among the training cells, and how many drawn cells express each.

    Parameters
    ----------
    recipe, directory, candidates, filled, options, crew
        As `assemble` takes them.
    splits
        Of each experiment's archive rows the split, see `TrainingGenes`.
    """
    files = filled.files
    sums = (
        splits,
        directory.archives_of(files),
        {name: file.sha256 for name, file in files.items()},
        {name: directory.statistics(name) for name in splits},
    )
    if crew is not None:
        sum_elsewhere(*sums, crew=crew, n_threads=crew.n_threads or options.n_threads)
    with Workers(options.n_threads) as workers, Progress("genes"):
        training = TrainingGenes(
            *sums,
            group_experiments(candidates, recipe.batch_key, list(splits)),
            workers,
        )
        settings = recipe.gene_settings
        choice = choose_genes(settings, filled.axis, training.batches, training.count_above)
    return choice, training.n_expressing


def write_choice(
    recipe: Recipe, axis: GeneAxis, choice: GeneChoice, *, info: Path, figure: Path
) -> None:
    """Write a choice of genes as `hvg_info.json`, and as a picture."""
    write_json(info, choice.to_dict(axis, recipe.gene_settings))
    plot_hvgs(figure, choice, axis, recipe.gene_settings)


def _describe_files(
    paths: Sequence[Path], directory: DataDirectory, n_threads: int
) -> list[FileEntry]:
    """What the manifest has of each file; every byte is read again."""
    n_bytes = sum(path.stat().st_size for path in paths)
    with Progress("seal", "B", n_bytes) as progress, Workers(n_threads) as workers:

        def describe(path: Path) -> FileEntry:
            entry = describe_file(path, directory.path)
            progress.add(entry.size)
            return entry

        return workers.map(describe, paths)


def _tell(manifest: Manifest, experiments: Sequence[Mapping[str, Any]]) -> None:
    """Say what was made, and what was lost: in the log, or on the screen where no log shows it."""
    level = logging.WARNING if have_failed(experiments) else logging.INFO
    genes, n_shards = manifest.genes, len(manifest.shards)
    made = {
        "split": " + ".join(f"{n:,} {split}" for split, n in manifest.n_cells.items()),
        "genes": f"{genes.n_chosen:,} of {genes.n_reference:,}",
        "shards": f"{n_shards:,} {manifest.shard_format}, {_add_up(manifest.shard_entries)}",
        "on disk": f"{_add_up(manifest.files)} in {manifest.data_dir}",
    }
    lines = [describe_losses(experiments), *(f"{name:18} {text}" for name, text in made.items())]
    text = "\n".join(["what became of the experiments:", *lines])
    logger.log(level, "%s", text)
    if not logger.isEnabledFor(level):
        tell(text)


def _add_up(files: Iterable[FileEntry]) -> str:
    return describe_size(sum(entry.size for entry in files))


def _report_absent(choice: GeneChoice) -> None:
    if choice.n_absent:
        absent = [gene for gene, i in zip(choice.ids, choice.indices, strict=True) if i < 0]
        logger.warning(
            "%d of the %d genes given are not in the data, such as %s: their columns are zeros",
            choice.n_absent,
            len(choice.ids),
            ", ".join(absent[:5]),
        )
