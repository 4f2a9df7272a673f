"""What raw dispersion picks where depths differ tenfold: `python benchmarks/depth.py`.

The simulated atlas of `fixtures/atlas.py`, whose experiments differ tenfold in depth, is prepared
once for each way of ranking genes. Its cell types' profiles are known, so the truly variable genes
are, too: those whose expected counts, scaled to 10,000 a cell, have the highest variance/mean
between the types. Printed is how many of the chosen 2,000 are among the true 2,000; `--picture`
also draws it. `--quick` takes fewer cells.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from fixtures.atlas import make_atlas, read_profiles
from fixtures.goals import print_goal
from matplotlib.figure import Figure

from scdiff_data import H5adFolder, Recipe, prepare
from scdiff_data.pipeline.stages import choose_genes_again

N_HVGS, N_GENES = 2_000, 36_601
WAYS = {
    "dispersion": {"flavor": "dispersion", "normalize": False},
    "dispersion, normalised": {"flavor": "dispersion", "normalize": True},
    "dispersion, normalised, by experiment": {
        "flavor": "dispersion",
        "normalize": True,
        "batch_key": "experiment_id",
    },
    "seurat": {"flavor": "seurat", "normalize": False, "batch_key": None},
    "cell_ranger": {"flavor": "cell_ranger"},
    "seurat_v3, by experiment": {"flavor": "seurat_v3", "batch_key": "experiment_id"},
}


def find_variable(*, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True dispersion of every gene between the types, and the genes of highest."""
    shares, weights = read_profiles(N_GENES)
    scaled = 1e4 * shares
    mean = weights @ scaled
    dispersion = weights @ (scaled - mean) ** 2 / mean
    best = np.argsort(-np.where(among, dispersion, -1), kind="stable")[:N_HVGS]
    return dispersion, best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer cells")
    parser.add_argument("--picture", type=Path, help="PNG to draw")
    arguments = parser.parse_args()
    n_cells = 5_000 if arguments.quick else 20_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_atlas(folder, n_cells=n_cells)
        recipe = Recipe(
            source=H5adFolder(str(paths[0].parent)),
            min_genes=None,
            min_counts=None,
            n_hvgs=N_HVGS,
            min_cells_pct=1.0,
            split={"by": "cell", "val": 0, "test": 0},
        )
        prepare(recipe, folder / "data")
        chosen = {}
        for way, settings in WAYS.items():
            choose_genes_again(folder / "data", replace=True, **settings)
            info = json.loads((folder / "data" / "hvg_info.json").read_text())
            chosen[way] = np.array(info["hvg_indices"])
        counted = [np.load(p) for p in sorted((folder / "data" / "statistics").glob("*.npz"))]
        n_expressing, total = (sum(c["whole"][0, i] for c in counted) for i in (0, 1))
    truth, best = find_variable(among=n_expressing >= 0.01 * n_cells)
    print(f"{n_cells:,} cells of 10 experiments, tenfold apart in depth; {N_HVGS:,} genes chosen")
    overlap = {way: len(set(best) & set(genes)) / N_HVGS for way, genes in chosen.items()}
    rank = np.argsort(np.argsort(-total)) / N_GENES
    for way, genes in chosen.items():
        depth = 100 * np.mean(rank[genes] < N_HVGS / N_GENES)
        print(f"{way:38} {overlap[way]:6.1%} truly variable, {depth:3.0f} % of the most expressed")
    if arguments.picture:
        draw(arguments.picture, total / n_cells, truth, best, chosen, overlap)
    gain = overlap["dispersion, normalised"] / overlap["dispersion"]
    print_goal("normalising_finds_variable_genes", gain, ">=", 1.0)


def draw(
    path: Path,
    mean: np.ndarray,
    truth: np.ndarray,
    best: np.ndarray,
    chosen: dict[str, np.ndarray],
    overlap: dict[str, float],
) -> None:
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, way in zip(panels, ["dispersion", "dispersion, normalised"], strict=False):
        is_true, is_chosen = np.zeros((2, len(mean)), bool)
        is_true[best], is_chosen[chosen[way]] = True, True
        shown = (mean > 0) & (truth > 0)
        for mask, colour, label in (
            (~is_true & ~is_chosen, "#B5B5B5", "neither"),
            (is_true & ~is_chosen, "#E69F00", "variable, not chosen"),
            (~is_true & is_chosen, "#D55E00", "chosen, not variable"),
            (is_true & is_chosen, "#0072B2", "variable and chosen"),
        ):
            points = mask & shown
            panel.scatter(
                mean[points], truth[points], s=4, c=colour, label=label, linewidths=0, alpha=0.7
            )
        panel.set(
            xscale="log", yscale="log", xlabel="mean count", title=f"{way}: {overlap[way]:.0%}"
        )
        panel.set_ylabel("true variance / mean between cell types")
        panel.legend(frameon=False, markerscale=3, fontsize=8)
    names = list(overlap)[::-1]
    panels[2].barh(names, [100 * overlap[name] for name in names], color="#0072B2")
    panels[2].set(xlabel="chosen genes that are truly variable (%)", xlim=(0, 100))
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(exist_ok=True, parents=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
