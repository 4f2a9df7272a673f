"""What a data report says, section by section."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scdiff_data.archive import QualityFilter
from scdiff_data.base import describe_size
from scdiff_data.constants import MAX_COUNT, SPLITS
from scdiff_data.recipes import Recipe
from scdiff_data.reporting.page import (
    show_details,
    show_figure,
    show_heading,
    show_table,
    show_text,
)
from scdiff_data.reporting.pictures import (
    MOST_NAMED,
    draw_cells,
    draw_components,
    draw_experiments,
    draw_label,
    draw_losses,
)
from scdiff_data.reporting.sample import MOST_CELLS, SampledCells
from scdiff_data.reporting.survey import CellSurvey
from scdiff_data.store import Manifest

_MOST_LISTED = 50
"""Rows of a table: experiments left out, values of a label."""

_MOST_LETTERS = 300
"""Letters of a setting's value that are shown."""

_MOST_LABELS = 8
"""Labels that are shown one by one."""


def tell_losses(manifest: Manifest, experiments: Sequence[Mapping[str, Any]]) -> str:
    """What became of the cells of the files: taken, or lost for which reason."""
    recipe, dropped = manifest.recipe, manifest.dropped
    n_drawn = sum(manifest.n_cells.values())
    quality = Recipe.from_settings(recipe).quality
    cap, wanted = recipe.get("max_cells_per_experiment"), recipe.get("cell_count")
    steps = [
        ("other cells, by cell_filters", dropped.get("cells_filtered", 0)),
        ("failing QC", dropped["cells_failing_quality"]),
        ("over the cap of an experiment", dropped["cells_over_cap"]),
        ("not needed", dropped["cells_not_drawn"]),
    ]
    shown = [(name, n) for name, n in steps if n or name == "failing QC"]
    asked = "all cells were asked for" if wanted is None else f"{wanted:,} cells were asked for"
    limit = "no experiment has a cap" if cap is None else f"at most {cap:,} of an experiment"
    left_out = [entry for entry in experiments if entry["status"] != "drawn"]
    kept = str(quality) if quality == QualityFilter() else f"cells with {quality}"
    filters = {name: recipe[name] for name in ("filters", "exclude") if recipe.get(name)}
    parts = [
        show_text(f"QC keeps {kept}; {asked}; {limit}."),
        *(show_text(f"{name}: {json.dumps(rule)}", "small") for name, rule in filters.items()),
        show_figure(draw_losses(shown, n_drawn), "What became of the cells of the files read."),
        show_table(
            ("experiments", "number"),
            [
                ("read or tried", len(experiments)),
                ("with drawn cells", len(experiments) - len(left_out)),
                ("left out: no cell taken", dropped["experiments_skipped"]),
                ("left out: could not be read", dropped["experiments_failed"]),
            ],
        ),
    ]
    if left_out:
        reasons = Counter(str(entry["reason"]) for entry in left_out).most_common(_MOST_LISTED)
        rows = [(entry["experiment_id"], str(entry["reason"])) for entry in left_out]
        parts += [
            show_table(("why experiments were left out", "number"), reasons),
            show_details(
                f"The experiments left out ({min(len(rows), _MOST_LISTED)} of {len(rows):,})",
                show_table(("experiment", "reason"), rows[:_MOST_LISTED]),
            ),
        ]

    def count(name: str) -> tuple[int, int]:
        values = [entry.get(name, 0) for entry in experiments]
        return sum(values), sum(value > 0 for value in values)

    (saturated, in_saturated), (rounded, in_rounded) = map(count, ("n_saturated", "n_rounded"))
    (_, unknown), (_, missing) = map(count, ("n_genes_unknown", "n_genes_missing"))
    changed = [
        (f"counts above {MAX_COUNT:,}, stored as {MAX_COUNT:,}", saturated, in_saturated),
        ("values that were not quite whole, rounded", rounded, in_rounded),
    ]
    parts.append(show_table(("changed on the way", "counts", "experiments"), changed))
    parts.append(
        show_text(
            f"Genes that the shared axis lacks were left out of {unknown:,} experiments; in "
            f"{missing:,}, genes of the axis that the file lacks are zeros.",
            "small",
        )
    )
    return "".join(parts)


def tell_cells(manifest: Manifest, survey: CellSurvey) -> str:
    """How deep cells and experiments were sequenced."""
    parts = [
        show_figure(
            draw_cells(survey, manifest.recipe),
            "Counts and expressed genes of each cell, over all genes of its file. Splits that lie "
            "apart differ in depth.",
        ),
        show_figure(
            draw_experiments(survey),
            "Experiments by their number of cells, and how deep they were sequenced.",
        ),
    ]
    depths = np.exp(list(survey.mean_logs.values()))
    if len(depths) > 1:
        low, high = np.quantile(depths, [0.1, 0.9])
        parts.append(
            show_text(
                f"Between the shallowest and the deepest tenth of the experiments, depth differs "
                f"{high / low:.1f}-fold. Where that is much, normalize=true or flavor=seurat keep "
                "genes from being chosen for it."
            )
        )
    return "".join(parts)


def tell_labels(manifest: Manifest, survey: CellSurvey) -> str:
    """Which cells are of which split, and what they are labelled with."""
    rule = manifest.recipe["split"]
    by = rule["by"]
    how = {
        "experiment": "Whole experiments are of one split, by chance.",
        "cell": "Cells are divided by chance, each by itself.",
    }.get(by, f"Cells are divided by their value of {by}.")
    n_cells = np.array([manifest.n_cells[name] for name in SPLITS])
    rows = [(name, manifest.n_cells[name], manifest.n_experiments[name]) for name in SPLITS]
    parts = [
        show_text(f"{how} Only training cells choose genes."),
        show_table(("split", "cells", "of experiments"), rows),
    ]
    if not survey.labels:
        parts.append(show_text("The cells carry no labels: the setting labels names columns."))
    for name, label in list(survey.labels.items())[:_MOST_LABELS]:
        parts.append(show_heading(name))
        values, n_missing = label.list_values(), int(label.n_missing.sum())
        if label.ends is not None:
            low, high = label.ends
            parts.append(show_text(f"A number, {low:g} to {high:g}; {n_missing:,} cells lack it."))
            continue
        unseen = [value for value, n in values if n[0] == 0]
        if unseen:
            shown = ", ".join(unseen[:10]) + (" …" if unseen[10:] else "")
            parts.append(show_text(f"No training cell has: {shown}", "note"))
        n_more = sum(int(n.sum()) for _, n in values[MOST_NAMED:])
        more = f", of which the {MOST_NAMED} most frequent are shown; {n_more:,} cells have others"
        parts.append(
            show_figure(
                draw_label(name, label, n_cells),
                f"{len(values):,} values{more if n_more else ''}; {n_missing:,} cells have none. "
                "Where the marks of a row lie apart, the splits differ in it.",
            )
        )
        table = [[value, *map(int, n)] for value, n in values[:_MOST_LISTED]]
        heading = f"Cells of each value ({len(table)} of {len(values):,})"
        parts.append(show_details(heading, show_table((name, *SPLITS), table)))
    if others := list(survey.labels)[_MOST_LABELS:]:
        parts.append(show_text(f"Not shown: {', '.join(others)}.", "small"))
    return "".join(parts)


def tell_batches(survey: CellSurvey, sample: SampledCells) -> str:
    """Whether cells lie by experiment or by label."""
    labels = [name for name in survey.labels if name in sample.texts]
    figure = draw_components(sample, labels)
    if figure is None:
        return show_text("Too few cells, or genes that vary, to compare cells with each other.")
    n_cells = len(sample.total_counts)
    which = "all cells" if n_cells < MOST_CELLS else f"{n_cells:,} random cells"
    parts = [
        show_text(
            "If cells group by experiment where they could group by label, experiments differ in "
            "how they were made, and a model may learn that instead."
        ),
        show_figure(
            figure,
            f"Principal components of {which} over the best {sample.n_genes:,} genes: log(1 + "
            "count scaled to 10,000 a cell).",
        ),
    ]
    found = {name: sample.group_by(name) for name in ("experiment_id", *labels)}
    rows = [
        (
            "experiment" if name == "experiment_id" else name,
            group.n_values,
            f"{100 * group.explained:.0f} %",
            f"{100 * group.alike:.0f} %",
            f"{100 * group.alike_by_chance:.0f} %",
        )
        for name, group in found.items()
        if group is not None
    ]
    if rows:
        head = (
            *("cells by", "values", "of the variance lies between them"),
            *("the nearest cell has the same", "by chance"),
        )
        parts.append(show_table(head, rows))
        parts.append(
            show_text(
                "Of ten components; the variance is adjusted for the number of values. Experiments "
                "of different tissues divide cells, too, and rightly so.",
                "small",
            )
        )
    return "".join(parts)


def tell_genes(info: Mapping[str, Any], picture: bytes) -> str:
    """Which genes were chosen, from what `hvg_info.json` says and its picture."""
    statistics = info["statistics"]
    rows = [
        (g["symbol"], g["gene"], float(g["dispersion"]), f"{g['percent_of_cells']:.1f} %")
        for g in statistics["top"]
    ]
    absent = statistics["n_genes_absent"]
    note = show_text(f"{absent:,} of the genes named are not in the data: zeros.", "note")
    how = {"given": "They were named by the user.", "all": "All genes were kept."}
    said = how.get(info["flavor"], f"They were ranked by {statistics['score']}, among the ")
    if info["flavor"] not in how:
        percent = info["settings"]["min_cells_pct"]
        said += (
            f"{statistics['n_genes_passing']:,} genes that at least {percent:g} % of the "
            f"{statistics['n_cells']:,} training cells express."
        )
    chosen = f"{len(info['hvg_indices']):,} of {statistics['n_genes']:,} genes. {said}"
    return "".join(
        [
            show_text(chosen),
            note if absent else "",
            show_figure(picture, "How genes were chosen, and what the chosen ones are like."),
            show_table(("gene", "id", "variance / mean", "cells that express it"), rows),
        ]
    )


def tell_settings(manifest: Manifest) -> str:
    """How the directory was made, and what is in it."""
    settings = []
    for name, value in manifest.recipe.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        more = "…" if text[_MOST_LETTERS:] else ""
        settings.append((name, text[:_MOST_LETTERS] + more))
    folders: dict[str, list[int]] = {}
    for entry in manifest.files:
        folder, _, name = entry.path.rpartition("/")
        folders.setdefault(f"{folder}/" if folder else name, []).append(entry.size)
    files = [(name, len(sizes), describe_size(sum(sizes))) for name, sizes in folders.items()]
    packages = ", ".join(f"{name} {number}" for name, number in manifest.packages.items())
    return "".join(
        [
            show_details("Every setting", show_table(("setting", "value"), settings)),
            show_table(("files", "number", "size"), files),
            show_text(
                f"Shards are {manifest.shard_format}, {manifest.shard_size:,} cells each. "
                f"Fingerprint of the settings: {manifest.recipe_digest}. Made with {packages}.",
                "small",
            ),
        ]
    )
