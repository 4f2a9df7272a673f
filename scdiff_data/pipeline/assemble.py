"""From archives to a finished directory: cells, genes, shards, and last the manifest."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from scdiff_data.base import FileEntry, Workers, describe_file, digest, hash_file, write_json
from scdiff_data.errors import ManifestError
from scdiff_data.genes import GeneChoice, TrainingGenes, choose_genes, plot_hvgs
from scdiff_data.pipeline.cell_table import draw_cells
from scdiff_data.pipeline.fill_archive import FilledArchive
from scdiff_data.pipeline.planning import as_size
from scdiff_data.pipeline.verifying import find_damaged
from scdiff_data.reading import GeneAxis
from scdiff_data.recipes import PrepareOptions, Recipe
from scdiff_data.shards import ShardGenes, choose_format, write_shards
from scdiff_data.sources import filter_catalog, group_experiments, read_rows, read_stored
from scdiff_data.store import (
    DataDirectory,
    GeneCounts,
    Manifest,
    Records,
    describe_losses,
    have_failed,
    list_experiments,
    mark_unfinished,
    read_experiments,
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

    Raises
    ------
    ValueError
        If the settings contradict the data.
    """
    axis = filled.axis
    files = {r.experiment_id: r.file for r in filled.records if r.file is not None}
    archives = {name: directory.archive(name) for name in files}
    cells = draw_cells(recipe, directory, archives, read_rows(candidates))
    experiments = list_experiments(filled.records, cells.count_drawn)
    write_json(directory.experiments, experiments)

    checksums = {name: file.sha256 for name, file in files.items()}
    batch_of = group_experiments(candidates, recipe.batch_key)
    splits = {name: cells.splits_of(name) for name in cells.rows}
    statistics = {name: directory.statistics(name) for name in splits}
    with Workers(options.n_threads) as workers, Progress("genes"):
        training = TrainingGenes(splits, archives, checksums, statistics, batch_of, workers)
        choice = choose_genes(recipe.gene_settings, axis, training.batches, training.count_above)
    write_json(directory.hvg_info, choice.to_dict(axis, recipe.gene_settings))
    plot_hvgs(directory.hvg_figure, choice, axis, recipe.gene_settings)
    _report_absent(choice)

    words = {name: list(found) for name, found in cells.words.items()}
    shards_key = digest([recipe.digest, checksums, list(choice.ids), words])
    known = choice.indices[choice.indices >= 0]
    n_values = int(training.n_expressing[known].sum())
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
            n_threads=options.n_threads,
            max_memory=options.max_memory,
            report_sorted=are_sorted.add,
            report_cells=are_written.add,
        )
    written = [
        *(directory.catalog, directory.genes, directory.experiments, directory.cells),
        *statistics.values(),
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
        files=(*files.values(), *_describe_files(written, directory)),
    )
    manifest.write()
    _tell(manifest, experiments)
    return manifest


def reassemble(
    directory: DataDirectory, changes: Mapping[str, Any], options: PrepareOptions, *, replace: bool
) -> Manifest:
    """Choose genes of a finished directory by other settings, and write its shards anew.

    Needs neither the source nor the network. The caller holds the directory's lock; killed at any
    moment, the same call goes on.

    Parameters
    ----------
    directory
        The directory.
    changes
        Settings of the choice, as `Recipe` has them; the others stay.
    options
        How it is done.
    replace
        Whether the genes that are there may be replaced.

    Raises
    ------
    FileNotFoundError
        If the directory was not prepared.
    ManifestError
        If its archives are damaged.
    ValueError
        If a setting is out of its range, or other genes are there and `replace` is False.
    """
    manifest = Manifest.read_replaced(directory) or Manifest.read(directory.path)
    stored = manifest.recipe
    recipe = Recipe.from_settings(stored, **changes)
    if not replace:
        manifest.check_files()
        if recipe.makes_what(stored):
            return manifest
        different = [f"{k}={stored[k]}" for k in changes if stored[k] != recipe.settings()[k]]
        raise ValueError(
            f"{directory.path} holds genes chosen with {', '.join(different)}: replace=True "
            f"(--force) replaces them, {directory.hvg_info.name} and the shards"
        )
    manifest.check_files(directory.archives)
    needed = (directory.catalog, directory.genes, directory.experiments)
    for entry in manifest.files:
        if directory.path / entry.path in needed:
            manifest.check_file(entry, full=True)
    axis = GeneAxis.read(directory.genes)
    catalog = read_stored(directory.catalog)
    candidates = filter_catalog(catalog, recipe.filters, recipe.exclude)
    rows = read_rows(candidates)
    known, found = Records(directory, recipe.archive_key), []
    for tried in read_experiments(directory.experiments):
        if (name := tried["experiment_id"]) not in rows:
            raise ManifestError.damaged(
                directory.experiments, f"experiment_id {name} is none of the catalog's"
            )
        record = known.find(rows[name], axis)
        if record is None:
            raise ManifestError(
                f"the record or archive of experiment {name} in "
                f"{directory.archives} is missing or damaged: call prepare(recipe, data_dir) or "
                "run 'scdiff-data train prepare_only=true', which fetch what is missing"
            )
        found.append(record)
    if damaged := find_damaged(directory, found, options.n_threads):
        raise ManifestError(
            f"{directory.archive(damaged[0].experiment_id)} has other bytes than its record says: "
            "call prepare(recipe, data_dir) or run 'scdiff-data train prepare_only=true', which "
            "make it again"
        )
    mark_unfinished(directory, keep=True)
    return assemble(recipe, directory, candidates, FilledArchive(axis, found), options)


def _describe_files(paths: Sequence[Path], directory: DataDirectory) -> Iterator[FileEntry]:
    """What the manifest has of each file; every byte is read again."""
    with Progress("seal", "B", sum(path.stat().st_size for path in paths)) as progress:
        for path in paths:
            entry = describe_file(path, directory.path)
            progress.add(entry.size)
            yield entry


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
    return as_size(sum(entry.size for entry in files))


def _report_absent(choice: GeneChoice) -> None:
    if choice.n_absent:
        absent = [gene for gene, i in zip(choice.ids, choice.indices, strict=True) if i < 0]
        logger.warning(
            "%d of the %d genes given are not in the data, such as %s: their columns are zeros",
            choice.n_absent,
            len(choice.ids),
            ", ".join(absent[:5]),
        )
