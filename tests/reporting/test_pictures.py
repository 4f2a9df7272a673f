"""The pictures of a report say what their axes are, and are bounded whatever the data's size."""

from dataclasses import replace

import numpy as np

from scdiff_data.base import render_figure
from scdiff_data.reporting.pictures import (
    MOST_NAMED,
    draw_card,
    draw_components,
    draw_experiments,
    draw_label,
    draw_losses,
)
from scdiff_data.reporting.sample import SampledCells
from scdiff_data.reporting.survey import CellSurvey, LabelSurvey, Spread


def survey_of(n_experiments: int) -> CellSurvey:
    rng = np.random.default_rng(0)
    names = [f"SRX{i}" for i in range(n_experiments)]
    experiments = LabelSurvey(n_of={name: rng.integers(1, 50, 3) for name in names})
    mean_logs = {name: rng.normal(8, 1) for name in names}
    spread = Spread()
    return CellSurvey(n_experiments, n_experiments, spread, spread, experiments, mean_logs, {})


def test_experiments_are_named_and_many_become_curves() -> None:
    few, many = draw_experiments(survey_of(4)), draw_experiments(survey_of(35_000))
    cells, depth = few.axes
    assert {label.get_text() for label in cells.get_yticklabels()} == {f"SRX{i}" for i in range(4)}
    assert depth.get_xlabel() == "typical counts a cell (geometric mean)"
    assert [panel.get_xlabel() for panel in many.axes] == [
        "experiments, the largest first",
        "experiments, the deepest first",
    ]
    assert len(render_figure(many)) < 200_000


def test_a_card_of_any_cells_can_be_drawn() -> None:
    alone = survey_of(1)  # one cell, no label, no count
    alone.total_counts.add(np.array([0]), np.array([1]))
    assert len(render_figure(draw_card("alone", alone))) > 10_000
    values = {f"{i} a name that is far too long to show": np.array([1, 0, 2]) for i in range(99)}
    many = replace(survey_of(300), labels={"n": LabelSurvey(), "type": LabelSurvey(n_of=values)})
    many.total_counts.add(np.arange(300) * 100, np.arange(300) % 3)
    figure = draw_card("many", many)
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["cells by type, without 74 rare ones", "", "cells by experiment", ""]
    counts = figure.axes[1].get_legend().get_texts()
    assert counts[0].get_text() == "train, median 14,700"
    render_figure(figure)


def test_of_a_label_the_most_frequent_values_are_shown_as_they_are() -> None:
    n_of = {f"type {i} $": np.array([100 - i, 10, 0]) for i in range(60)}
    n_of["\u65e5\u672c"] = np.array([400, 0, 0])  # in no font of ours
    label = LabelSurvey(np.array([5, 0, 0]), {" Lung": np.array([500, 0, 0]), **n_of})
    figure = draw_label("cell_type", label, np.array([6_000, 600, 0]))
    (panel,) = figure.axes
    names = [text.get_text() for text in panel.get_yticklabels()]
    assert names[:3] == ["“ Lung”", "\u65e5\u672c", r"type 0 \$"]
    assert (len(names), names[-1]) == (MOST_NAMED + 1, "(missing)")
    assert panel.get_xlabel() == "share of the split's cells with this cell_type (%)"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["train", "val"]
    render_figure(figure)


def test_losses_are_written_beside_their_bars_also_where_there_are_none() -> None:
    figure = draw_losses([("failing QC", 25), ("not needed", 0)], 75)
    (panel,) = figure.axes
    assert [text.get_text() for text in panel.texts] == ["25 (25.0 %)", "0 (0.0 %)", "75 (75.0 %)"]
    render_figure(draw_losses([("failing QC", 0)], 0))
    alone = draw_losses([("failing QC", 0)], 1)
    render_figure(alone)
    numbers = [text.get_text() for text in alone.axes[0].get_xticklabels()]
    assert [number for number in numbers if number] == ["0", "1"]


def test_components_are_drawn_by_experiment_label_and_depth() -> None:
    rng = np.random.default_rng(0)
    texts = {"experiment_id": np.array([f"e{i % 9}" for i in range(30)])}
    texts["tissue"] = np.array(["_lung"] * 29 + [""])  # which matplotlib would not show
    places, shares = rng.normal(size=(30, 2)).astype(np.float32), np.array([0.4, 0.2])
    figure = draw_components(SampledCells(np.arange(30), texts, places, shares, 5), ["tissue"])
    assert figure is not None
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["experiment", "tissue", "depth", "", ""]
    by_experiment, by_tissue = (
        [text.get_text() for text in panel.get_legend().get_texts()] for panel in figure.axes[:2]
    )
    assert by_experiment == [*(f"e{i}" for i in range(7)), "2 more"]
    assert by_tissue == ["“_lung”", "no value"]
    assert draw_components(SampledCells(np.arange(3), {}, None, np.zeros(0), 5), []) is None
