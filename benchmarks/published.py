"""Columns of published tables for cells of yours: `python benchmarks/published.py REAL`.

`--generated CELLS` names the cells to judge. REAL is an h5ad file of held-out cells, CELLS one of
generated cells over the same genes, both raw counts, as `scdiff-data generate` writes them. Each
paper's figures are by its own definitions (`fixtures/published.py` says which), so each column
compares with that paper's tables alone. Beside generated cells stands one half of the real cells
beside the other: no model can be better. That column is of half as many cells, which moves the
biased figures.

The papers' data cannot be had here: they are on figshare, named in CFGen's and scLDM's READMEs.
With DentateGyrus' or PBMC3K's own file, `--paper` puts the published figures beside yours.
"""

import argparse
import sys
from typing import Any

import numpy as np
from fixtures.published import PUBLISHED, measure_all


def read_cells(path: str, layer: str | None, label: str | None) -> tuple[Any, Any, Any]:
    """Counts, genes, and labels or None."""
    import anndata

    cells = anndata.read_h5ad(path)
    counts = cells.X if layer is None or layer not in cells.layers else cells.layers[layer]
    counts = counts.toarray() if hasattr(counts, "toarray") else np.asarray(counts)
    if (counts < 0).any() or (counts != np.rint(counts)).any():
        sys.exit(f"{path} holds no counts in {layer or 'X'}: name their layer (--layer X_counts)")
    labels = None
    if label is not None:
        if label not in cells.obs:
            sys.exit(f"{path} has no column {label!r}; it has {list(cells.obs)}")
        labels = cells.obs[label].astype(str).to_numpy()
    return counts, np.asarray(cells.var_names), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", metavar="REAL", help="h5ad of held-out real cells")
    parser.add_argument("--generated", metavar="CELLS", help="h5ad of generated cells")
    parser.add_argument("--layer", help="layer of both with the counts; what has none, X")
    parser.add_argument("--label", help="column of cell types: CFGen's figures by type")
    parser.add_argument("--paper", choices=PUBLISHED, help="data of these published figures")
    arguments = parser.parse_args()
    real, genes, labels = read_cells(arguments.real, arguments.layer, arguments.label)
    order = np.random.default_rng(0).permutation(len(real))
    halves = [order[half::2] for half in (0, 1)]
    both = None if labels is None else tuple(labels[half] for half in halves)
    columns = {"real, halves": measure_all(*(real[half] for half in halves), both)}
    if arguments.generated is not None:
        own, own_genes, own_labels = read_cells(
            arguments.generated, arguments.layer, arguments.label
        )
        places = {gene: place for place, gene in enumerate(own_genes)}
        shared = [gene for gene in genes if gene in places]
        if not shared:
            sys.exit(f"{arguments.generated} has none of the genes of {arguments.real}")
        real = real[:, np.isin(genes, shared)]
        own = own[:, [places[gene] for gene in shared]]
        print(f"{len(real):,} real and {len(own):,} generated cells, {len(shared):,} shared genes")
        both = None if labels is None else (labels, own_labels)
        columns = {"generated": measure_all(real, own, both)} | columns
    published = PUBLISHED.get(arguments.paper, {})
    print(f"{'':32}" + "".join(f"{name:>16}" for name in columns) + "  published")
    for name in columns["real, halves"]:
        values = "".join(f"{column[name]:16.4f}" for column in columns.values())
        print(f"{name:32}{values}  {published.get(name, '')}".rstrip())


if __name__ == "__main__":
    main()
