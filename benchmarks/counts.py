"""What bins cost in likelihood of counts, beside other bins: `python benchmarks/counts.py`.

Count NLL is that of the tokens plus -log p(count | token), in nats a gene of held-out cells.

*Laws.* -log p(count | token) within the default's bins: by the law that all genes share, as
tokenizers have it; by one of each gene, and of each gene and eighth of the depths, shrunk to the
shared one as the training cells ask for (a Dirichlet prior a bin); and by a negative binomial that
is told gene, type and depth. On simulated cells that is the law that made them, and no other can
gain more; on blood it is fitted by moments. Below stands what decoding held-out tokens by the
shared law does to the genes' means and variances.

*Vocabularies.* The same network learns from other tokens for as many CPU-seconds, on the same cells
and masks; averaged weights, mean over seeds and its standard error. Steps are timed in turns. Toy
counts end at 15. `--quick`: blood, 8 seconds, one seed.
"""

import argparse
import tempfile
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixtures.generating import find_true_laws, open_cells
from fixtures.goals import print_goal
from fixtures.toy import Mixture
from looks import CELLS, TOYS, Contender, read_cells
from scipy.optimize import minimize_scalar
from scipy.special import gammaln
from scipy.stats import nbinom

from scdiff_data import BinTokens, CountTokens, LogBinTokens

VOCABULARIES: dict[str, BinTokens] = {
    "log bins, ratio 1.5 (default)": LogBinTokens(),
    "log bins, ratio 2": LogBinTokens(10, 2.0),
    "log bins, ratio 1.25": LogBinTokens(26, 1.25),
    "each count to 16, then 1.5": BinTokens([*range(17), 24, 36, 54, 81, 121, 181, 271]),
    "each count to 31": CountTokens(32),
}
RACES: dict[str, dict[str, Any]] = {
    "pbmc": {"seconds": (8, 25), "n_seeds": 3, "n_rounds": 64},
    "toy": {"seconds": (20,), "n_seeds": 1, "n_rounds": 8},
    "weak": {"seconds": (20,), "n_seeds": 1, "n_rounds": 8},
    "atlas": {"seconds": (25,), "n_seeds": 1, "n_rounds": 3},
}
"""CPU-seconds of training; rounds of masks that a network is tested with."""


def split_by_depth(counts: Any, depths: Any, edges: Any) -> Any:
    """A number for each gene of each cell: the gene and the part of the depths."""
    n_genes = counts.shape[1]
    return np.searchsorted(edges, depths)[:, None] * n_genes + np.arange(n_genes)


def shrink(group_n: Any, place_n: Any, pooled: Any, n_groups: int) -> Any:
    """Each group's law within a bin, of the training counts' groups and places in it."""
    seen = np.zeros((n_groups, len(pooled)))
    np.add.at(seen, (group_n, place_n), 1)

    def lose(log_strength: float) -> float:  # minus the marginal likelihood of the training counts
        prior = np.exp(log_strength) * pooled
        total = gammaln(prior.sum()) - gammaln(prior.sum() + seen.sum(1))
        return -float(total.sum() + (gammaln(prior + seen) - gammaln(prior)).sum())

    strength = np.exp(minimize_scalar(lose, bounds=(-3, 12), method="bounded").x)
    return (seen + strength * pooled) / (seen.sum(1, keepdims=True) + strength)


def score_groups(tokenizer: BinTokens, parts: Any, groups: Any, n_groups: int) -> float:
    """What held-out counts cost within their bins by a law of each group, in the closed ones."""
    (train, held_out), edges = parts, tokenizer.edges.numpy()
    log_p = tokenizer.log_prob(torch.from_numpy(held_out)).double().numpy()
    pooled = tokenizer.count_log_prob.exp().numpy()
    for low, high in pairwise(edges):
        if high - low > 1:
            where = [(part >= low) & (part < high) for part in (train, held_out)]
            inside = groups[0][where[0]], train[where[0]].astype(int) - low
            p = shrink(*inside, pooled[low:high], n_groups)
            log_p[where[1]] = np.log(p[groups[1][where[1]], held_out[where[1]].astype(int) - low])
    return -float(log_p.mean())


def fit_law(train: Any, held_out: Any) -> Any:
    """Negative binomials for held-out cells; rates of gene and type are shrunk to the gene's."""
    (x_tg, known_t), (_, known_c) = train, held_out
    depth_t, depth_c = (np.asarray(known["total_counts"])[:, None] for known in (known_t, known_c))
    code_t, code_c = (np.asarray(known["cell_type"]) for known in (known_t, known_c))
    few = 5 * depth_t.mean()  # counts of five cells
    own_g = few * x_tg.sum(0) / depth_t.sum()
    sums = [
        ((code_t == code) @ x_tg, depth_t[code_t == code].sum()) for code in range(code_t.max() + 1)
    ]
    rate_kg = np.stack([(x_g + own_g) / (depth + few) for x_g, depth in [*sums, (0, 0)]])
    mean_tg = rate_kg[code_t] * depth_t
    spread_g = ((x_tg - mean_tg) ** 2 - mean_tg).sum(0) / (mean_tg**2).sum(0)
    shape_g = 1 / np.maximum(spread_g, 1e-3)
    return nbinom(shape_g, shape_g / (shape_g + rate_kg[code_c] * depth_c))


def score_law(tokenizer: BinTokens, counts: Any, law: Any) -> Any:
    """-log p(count | token) of a law, [t, g] or [c, g]."""
    edges = tokenizer.edges.numpy()
    place = np.searchsorted(edges, counts, side="right")
    above, below = np.append(edges, np.inf)[place] - 1, edges[place - 1] - 1
    # Survival functions where a distribution function would be 1: their difference stays exact.
    inside = np.where(
        law.cdf(below) < 0.5, law.cdf(above) - law.cdf(below), law.sf(below) - law.sf(above)
    )
    nll = np.log(np.maximum(inside, 1e-300)) - law.logpmf(counts)
    return np.where(np.diff(np.append(edges, np.inf))[place - 1] == 1, 0.0, nll)


def compare_laws(name: str, folder: Path) -> float:
    """Print the first table of some cells; what the best law that is told more gains."""
    cells, tokenizer = open_cells(name, folder, split={"by": "cell"}), LogBinTokens()
    train, *others = (cells.train_dataset[:], cells.val_dataset[:], cells.test_dataset[:])
    x_tg, x_cg = (np.asarray(x) for x in (train[0], np.concatenate([o[0] for o in others])))
    depth_t, depth_c = (
        np.concatenate([np.asarray(part[1]["total_counts"]) for part in of])
        for of in ([train], others)
    )
    tokenizer.fit(x_tg, depth_t)
    parts, n_genes, held_out = (x_tg, x_cg), x_tg.shape[1], torch.from_numpy(x_cg)
    decoded = tokenizer.decode(tokenizer.encode(held_out), torch.Generator().manual_seed(0)).numpy()
    costs = {"shared by all genes": -float(tokenizer.log_prob(held_out).mean())}
    for told, n in (("of each gene", 1), ("of each gene and depth", 8)):
        edges = np.quantile(depth_t, np.arange(1, n) / n)
        both = zip(parts, (depth_t, depth_c), strict=True)
        groups = [split_by_depth(x, depth, edges) for x, depth in both]
        costs[told] = score_groups(tokenizer, parts, groups, n * n_genes)
    told = "negative binomial, told type and depth"
    if name == "pbmc":
        known = {key: np.concatenate([np.asarray(o[1][key]) for o in others]) for key in
                 ("total_counts", "cell_type")}  # fmt: skip
        law = fit_law((x_tg.astype(float), train[1]), (x_cg, known))
        costs[told] = float(score_law(tokenizer, x_cg, law).mean())
    else:
        rows = []
        for counts_g, law in find_true_laws(cells, len(x_cg)):
            likeliest = int(law.logpmf(counts_g).sum(1).argmax())
            rows.append(score_law(tokenizer, counts_g, law)[likeliest].mean())
        costs[told + ": the true one"] = float(np.mean(rows))
    first, *_, last = costs.values()
    for told, cost in costs.items():
        print(f"{name:5} {told:54} {cost:.4f}  gains {first - cost:.4f}", flush=True)
    for told, measure in (("means", np.mean), ("variances", np.var)):
        real_g = np.maximum(measure(x_cg.astype(float), 0), 1e-9)
        low, middle, high = np.quantile(measure(decoded, 0) / real_g, (0.05, 0.5, 0.95))
        print(
            f"{name:5} {told} of decoded genes {middle:.3f} of the real ({low:.3f} to {high:.3f})"
        )
    return first - last


def race(name: str, folder: Path, budgets: tuple[int, ...], n_seeds: int) -> float:
    """Print the second table of some cells; what the best vocabulary gains over the default."""
    setting, contenders = CELLS[name], {}
    for told, tokenizer in VOCABULARIES.items():
        cells = read_cells(name, folder, tokenizer)
        tokenizer.fit(cells["counts"][0], cells["train"][1].numpy())
        within = -float(tokenizer.log_prob(torch.from_numpy(cells["counts"][1])).mean())
        contenders[told] = (cells, within, Contender(cells, setting, 2, 0))
    if name in TOYS:
        tokens = torch.from_numpy(cells["counts"][1]).long()
        print(f"{name:5} the mixture's own {Mixture(128, sd=TOYS[name]).exact_nll(tokens):.4f}")
    took: dict[str, list[float]] = {told: [] for told in contenders}
    for _ in range(8):  # the first two warm up
        for told, (_, _, probe) in contenders.items():
            took[told].append(probe.train(10, until=10**6) / 10)
    gained = []
    for seconds in budgets:
        found = {}
        for told, (cells, within, _) in contenders.items():
            n_steps, nlls, used = int(seconds / np.median(took[told][2:])), [], []
            for seed in range(n_seeds):
                contender = Contender(cells, setting, 2, seed)
                used.append(contender.train(n_steps, until=n_steps))
                nlls.append(contender.test(RACES[name]["n_rounds"])[0] + within)
            found[told] = float(np.mean(nlls))
            error = np.std(nlls, ddof=1) / n_seeds**0.5 if n_seeds > 1 else np.nan
            tokens, log_marginal_gv = (
                cells["held_out"][0],
                torch.from_numpy(cells["log_marginal_gv"]),
            )
            marginal = within - float(log_marginal_gv.gather(1, tokens.T).mean())
            print(
                f"{name:5} {told:30} {log_marginal_gv.shape[1]:2}  {n_steps:5,} steps  "
                f"{np.mean(used):3.0f} CPU s  {found[told]:.4f} ± {error:.4f}  "
                f"(marginal {marginal:.4f}; within bins {within:.4f})",
                flush=True,
            )
        default, *others = found.values()
        gained.append(default - min(others))
    return max(gained)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="blood, 8 seconds, one seed")
    parser.add_argument("--cells", nargs="+", choices=RACES, default=list(RACES))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    names, goals = ["pbmc"] if arguments.quick else arguments.cells, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            if name not in TOYS:
                goals[f"{name}_gained_by_best_law"] = compare_laws(name, Path(folder))
        for name in names:
            budgets, n_seeds = RACES[name]["seconds"], RACES[name]["n_seeds"]
            if arguments.quick:
                budgets, n_seeds = budgets[:1], 1
            goals[f"{name}_gained_by_best_tokens"] = race(name, Path(folder), budgets, n_seeds)
    for goal, gained in goals.items():
        print_goal(goal, gained, "<=", 0.005, digits=4)


if __name__ == "__main__":
    main()
