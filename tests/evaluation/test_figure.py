"""A run's picture is written whole, the same for the same data, and shows what it promises."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scdiff_data.evaluation.figure import ReportContent, draw_report, draw_samples, plot_report
from scdiff_data.evaluation.panels import Components, Samples

SCORES = {
    **dict.fromkeys(("gene_mean_ratio", "gene_variance_ratio", "duplicates", "mmd2"), 1.0),
    **dict.fromkeys(("zero_fraction_difference", "library_cv_ratio", "wasserstein_per_gene"), 0.5),
    **dict.fromkeys(("detected_genes_cv_ratio", "gene_correlation_agreement"), 0.25),
    **dict.fromkeys(("nearest_neighbour_accuracy", "forest_auc"), 0.75),
}

CURVE = {
    "predicted": [0.1, 0.9],
    "observed": [0.15, 0.9],
    "low": [0.1, 0.85],
    "high": [0.2, 0.95],
    "ece": 0.05,
    "ece_of": {"SRX1": 0.1, "SRX2": 0.02},
    "observed_of": {"SRX1": [[0.1, 0.9], [0.2, 0.8]], "SRX2": [[0.9], [0.9]]},
}
PAIR = {
    "labels": ["B cell", "T cell"],
    "slope": 0.9,
    "slope_ceiling": (0.95, 1.0, 1.05),
    "correlation": 0.8,
    "correlation_ceiling": (0.85, 0.9, 0.95),
}
EFFECTS = {"label": "cell_type", "pairs": [PAIR]}


def make_samples(n_genes: int = 30) -> Samples:
    rng = np.random.default_rng(0)
    counts = [rng.poisson(rng.gamma(1.0, 1.0, n_genes), (n, n_genes)) for n in (40, 25, 30)]
    return Samples.cut(*counts)


@pytest.fixture
def content() -> ReportContent:
    return ReportContent(
        samples=make_samples(),
        split="val",
        held_out="2 experiments",
        scores={"generated": SCORES, "real": SCORES, "scale": {"mmd2": 0.875, "duplicates": None}}
        | {"effects": EFFECTS, "calibration": {"zeros": CURVE, "counts": CURVE}},
        type_names=["B cell", "T cell", "of a $ price"],
        type_shares={"generated": [0.5, 0.4, 0.1], "real": [0.2, 0.7, 0.1], "other": [0.3] * 3},
        curves={
            "step": [10, 20],
            "train/loss": [1.0, 0.9],
            "val/loss": [1.0, 0.95],
            "val/marginal": [1.1, 1.1],
        },
        losses={
            "val/loss": 0.95,
            "val/loss_se": 0.02,
            "val/count_nll": 1.15,
            "test/loss": 0.97,
            "test/loss_se": 0.03,
            "test/count_nll": 1.17,
        },
        baselines={
            "val": {"marginal": 1.3, "given_cell_type": 1.2},
            "test": {"marginal": 1.35, "given_cell_type": 1.25},
        },
    )


def read(axes: Any) -> list[str]:
    legend = axes.get_legend()
    return [text.get_text() for text in (legend.get_texts() if legend else [])]


def test_the_same_data_give_the_same_bytes_and_nothing_else(
    tmp_path: Path, content: ReportContent
) -> None:
    plot_report(tmp_path / "new" / "a.png", content)
    plot_report(tmp_path / "new" / "b.png", content)
    first, second = sorted((tmp_path / "new").iterdir())
    assert first.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert first.read_bytes() == second.read_bytes()


def test_as_many_generated_cells_as_real_ones_are_shown(content: ReportContent) -> None:
    assert [len(counts) for counts in vars(content.samples).values()] == [25, 25, 25]
    title = draw_report(content).get_suptitle()
    assert title == (
        "25 generated cells beside as many held-out ones (validation: 2 experiments held out), "
        "and as many other real ones"
    )


def test_scores_stand_beside_their_baselines(content: ReportContent) -> None:
    figure = draw_report(content)
    losses, likelihoods, scores, *_ = figure.axes
    assert read(losses)[-1] == "test: 0.970 ± 0.030"
    rows = [label.get_text() for label in likelihoods.get_yticklabels()]
    assert rows == ["the model", "each gene\nby itself", "given cell_type"]
    assert [text.get_text() for text in likelihoods.texts] == [
        *("1.150", "1.300", "1.200"),
        *("1.170", "1.350", "1.250"),
    ]
    assert read(likelihoods) == ["validation", "test"]
    (table,) = scores.tables
    texts = [cell.get_text().get_text() for cell in table.get_celld().values()]
    assert texts[:5] == ["held-out cells beside", "ideal", "generated", "real", "scale"]
    assert len(texts) == 5 * (1 + len(SCORES))
    scale = {texts[row]: texts[row + 4] for row in range(0, len(texts), 5)}
    assert (scale["squared MMD"], scale["copies of training cells"]) == ("0.88", "–")


def test_probabilities_stand_beside_frequencies_and_effects_beside_a_replicates(
    content: ReportContent,
) -> None:
    panels = {panel.get_title(): panel for panel in draw_report(content).axes}
    (text,) = panels["of hidden genes: a count is 0"].texts
    assert text.get_text() == "calibration error 0.0500\nof 2 experiments at most 0.1000"
    slopes = panels["log-fold changes: slope"]
    assert [name.get_text() for name in slopes.get_yticklabels()] == ["B cell / T cell"]
    assert read(slopes) == ["95 % of real cells", "generated"]


def test_every_panel_says_what_its_axes_are_and_real_stands_beside_real(
    content: ReportContent,
) -> None:
    panels = {panel.get_title(): panel for panel in draw_report(content).axes}
    real = panels["real beside real, in the same components"]
    generated = panels["generated beside real: PCA of log(1 + count)"]
    assert read(real) == ["other real", "held-out real"]
    assert (real.get_xlim(), real.get_ylim()) == (generated.get_xlim(), generated.get_ylim())
    types = panels["types of the nearest training cells"]
    names = [label.get_text() for label in types.get_yticklabels()]
    assert names == ["T cell", "B cell", r"of a \$ price"]
    for title, panel in panels.items():
        if panel.axison:
            assert panel.get_xlabel(), title


def test_without_training_labels_or_scores_panels_say_so(content: ReportContent) -> None:
    bare = ReportContent(samples=content.samples, split="test")
    figure = draw_report(bare)
    said = {text.get_text() for panel in figure.axes for text in panel.texts}
    assert said == {
        *("nothing was trained", "nothing was scored"),
        *("too few cells to compare", "the cells have no labels"),
        *("nothing was predicted", "no two labels have cells enough"),
    }
    no_validation = {name: [] for name in content.curves}
    draw_report(replace(content, curves=no_validation))


def test_cells_that_are_all_empty_draw(tmp_path: Path) -> None:
    silent = np.zeros((3, 30), int)
    samples = Samples(silent, silent, silent)
    plot_report(tmp_path / "report.png", ReportContent(samples=samples, split="val"))
    assert (tmp_path / "report.png").exists()


def test_the_axes_of_a_picture_amid_training_are_those_of_the_real_cells() -> None:
    samples = make_samples()
    later = replace(samples, generated=samples.other)
    fits = [Components.fit([s.real, s.other], show=s) for s in (samples, later)]
    assert np.array_equal(fits[0].directions, fits[1].directions)
    figure = draw_samples(samples, "step 7")
    assert figure.get_suptitle() == "step 7"
    assert [panel.get_title() for panel in figure.axes] == [
        *("mean count of each gene", "fraction of zeros of each gene"),
        *("counts a cell", "PCA of log(1 + count)"),
    ]
