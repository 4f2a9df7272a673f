"""From archives to a finished directory: cells, genes, shards, and last the manifest."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from scdiff_data.archive import GeneAxis
from scdiff_data.base import Workers, describe_file, digest, hash_file, write_json, write_parquet
from scdiff_data.constants import SPLITS
from scdiff_data.errors import ManifestError
from scdiff_data.genes import GeneChoice, TrainingGenes, choose_genes, plot_hvgs
from scdiff_data.pipeline.cell_table import draw_table, split_codes, splits_of_rows
from scdiff_data.pipeline.fill_archive import Collected
from scdiff_data.pipeline.recipe import Recipe
from scdiff_data.sources import filter_catalog, group_experiments
from scdiff_data.store import Manifest, Records, list_experiments, sum_dropped, write_shards

logger = logging.getLogger(__name__)


def finish(
    recipe: Recipe,
    data_dir: Path,
    candidates: pa.Table,
    collected: Collected,
    *,
    n_threads: int,
) -> Manifest:
    """Draw the cells of the archives, choose genes, write shards and the manifest.

    Parameters
    ----------
    recipe
        What is wanted.
    data_dir
        Where the archives are, and everything goes.
    candidates
        The catalog's rows that the draw is from.
    collected
        The reference genes, and the records of the experiments in the order of the draw.
    n_threads
        Threads that sum genes, and shards written at a time.

    Raises
    ------
    ValueError
        If the settings contradict the data.
    """
    metadata, axis = data_dir / "metadata", collected.axis
    records = {r["experiment_id"]: r for r in collected.records if r.get("n_cells")}
    archives = {name: data_dir / record["file"]["path"] for name, record in records.items()}
    cells = draw_table(recipe, archives, {r["experiment_id"]: r for r in candidates.to_pylist()})
    write_parquet(metadata / "cells.parquet", cells)
    experiments = list_experiments(collected.records, cells)
    write_json(metadata / "experiments.json", experiments)

    checksums = {name: record["file"]["sha256"] for name, record in records.items()}
    batch_of = group_experiments(candidates, recipe.batch_key)
    splits = dict(splits_of_rows(cells, archives))
    with Workers(n_threads) as workers:
        training = TrainingGenes(splits, archives, checksums, data_dir, batch_of, workers)
        choice = choose_genes(recipe.gene_settings, axis, training.batches, training.count_above)
    write_json(data_dir / "hvg_info.json", choice.to_dict(axis, recipe.gene_settings))
    plot_hvgs(data_dir / "hvg_analysis.png", choice, axis)
    _report_absent(choice)

    shards_key = digest([recipe.digest, checksums, list(choice.ids)])
    with tqdm(total=len(cells), desc="shards", unit="cell", disable=None) as bar:
        shards = write_shards(
            data_dir / "processed",
            cells,
            archives,
            gene_indices=choice.indices,
            gene_ids=choice.ids,
            gene_symbols=choice.symbols,
            labels=recipe.labels,
            shard_size=recipe.shard_size,
            fallback_min_genes=recipe.fallback_min_genes,
            key=shards_key,
            n_threads=n_threads,
            report_cells=bar.update,
        )
    written = [
        *(metadata / name for name in ("catalog.parquet", "genes.parquet", "experiments.json")),
        metadata / "cells.parquet",
        *training.paths,
        *(data_dir / name for name in ("hvg_info.json", "hvg_analysis.png")),
        *shards,
    ]
    codes, experiment = split_codes(cells), cells["experiment_id"].combine_chunks().indices
    sizes = np.bincount(codes, minlength=len(SPLITS)).tolist()
    n_experiments = [len(np.unique(experiment.to_numpy()[codes == code])) for code in range(3)]
    return Manifest.write(
        data_dir,
        {
            "recipe": recipe.settings(),
            "recipe_digest": recipe.digest,
            "catalog_digest": hash_file(metadata / "catalog.parquet"),
            "genes": {
                "n_reference": len(axis),
                "reference_digest": axis.digest,
                "n_chosen": len(choice.indices),
                "n_absent": choice.n_absent,
                "chosen_digest": digest(list(choice.ids)),
            },
            "cells": dict(zip(SPLITS, sizes, strict=True)),
            "experiments": dict(zip(SPLITS, n_experiments, strict=True)),
            "shards_key": shards_key,
            "dropped": sum_dropped(experiments),
            "files": [record["file"] for record in records.values()]
            + [describe_file(path, data_dir) for path in written],
        },
    )


def choose_again(
    data_dir: Path, changes: Mapping[str, Any], *, replace: bool, n_threads: int
) -> Manifest:
    """Choose genes of a finished directory by other settings, and write its shards anew.

    Needs neither the source nor the network. The caller holds the directory's lock; killed at any
    moment, the same call goes on.

    Parameters
    ----------
    data_dir
        The directory.
    changes
        Settings of the choice, as `Recipe` has them; the others stay.
    replace
        Whether the genes that are there may be replaced.
    n_threads
        Threads that sum genes.

    Raises
    ------
    FileNotFoundError
        If the directory was not prepared.
    ManifestError
        If its archives are damaged.
    ValueError
        If a setting is out of its range, or other genes are there and `replace` is False.
    """
    manifest = Manifest.read_replaced(data_dir) or Manifest.read(data_dir)
    recipe = Recipe.from_settings(manifest.content["recipe"], **changes)
    stored = manifest.content["recipe"]
    if not replace:
        manifest.check_files()
        if manifest.content["recipe_digest"] == recipe.digest:
            return manifest
        different = [f"{k}={stored[k]}" for k in changes if stored[k] != recipe.settings()[k]]
        raise ValueError(
            f"{data_dir} holds genes chosen with {', '.join(different)}: --force replaces them, "
            "hvg_info.json and the shards"
        )
    manifest.check_files("cells/")
    axis = GeneAxis.read(data_dir / "metadata" / "genes.parquet")
    catalog = pq.read_table(data_dir / "metadata" / "catalog.parquet")
    candidates = filter_catalog(catalog, recipe.filters, recipe.exclude)
    rows = {row["experiment_id"]: row for row in candidates.to_pylist()}
    known, found = Records(data_dir, recipe.archive_key), []
    for entry in json.loads((data_dir / "metadata" / "experiments.json").read_text("utf-8")):
        record = known.find(rows[entry["experiment_id"]], axis)
        if record is None:
            raise ManifestError(
                f"the record or archive of experiment {entry['experiment_id']} in {data_dir}/cells "
                "is missing or damaged: run 'python train.py prepare_only=true', which fetches "
                "what is missing"
            )
        found.append(record)
    manifest.set_aside()
    return finish(recipe, data_dir, candidates, Collected(axis, found), n_threads=n_threads)


def _report_absent(choice: GeneChoice) -> None:
    if choice.n_absent:
        absent = [gene for gene, i in zip(choice.ids, choice.indices, strict=True) if i < 0]
        logger.warning(
            "%d of the %d genes given are not in the data, such as %s: their columns are zeros",
            choice.n_absent,
            len(choice.ids),
            ", ".join(absent[:5]),
        )
