"""What a run would draw, fetch and store, worked out from the catalog before any cell is fetched.

Each figure is given for the best case, in which all cells pass QC, and for the likely one.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from scdiff_data.base import describe_number, describe_size
from scdiff_data.planning.forecast import DrawForecast, Forecast
from scdiff_data.recipes import PrepareOptions, Recipe, check_sizes
from scdiff_data.sources import filter_catalog, group_experiments, match_conditions, sum_cells
from scdiff_data.store import DataDirectory


@dataclass(frozen=True)
class Plan:
    """What a run would do; `print` it.

    Parameters
    ----------
    recipe
        What is wanted.
    data_dir
        Where it goes.
    candidates
        The catalog's rows that the draw is from: those that pass filters and exclusions.
    in_catalog, matching
        Experiments and cells, in the catalog and after filters and exclusions.
    most_cells
        Cells that there are at most, after the cap and as far as earlier runs know of QC.
    passing
        Fraction of cells that is likely to pass QC.
    best, likely
        The draw if every cell passes QC, and if that fraction does.
    without
        Cells that there would be at most without one of the filters, exclusions or the cap.
    free_bytes
        Free space on the disk.
    """

    recipe: Recipe
    data_dir: Path
    candidates: pa.Table
    in_catalog: tuple[int, int]
    matching: tuple[int, int]
    most_cells: int
    passing: float
    best: DrawForecast
    likely: DrawForecast
    without: Mapping[str, int]
    free_bytes: int

    def check(self) -> None:
        """Refuse to start what cannot end well.

        Raises
        ------
        ValueError
            If even all the cells that there are would not be enough.
        OSError
            If the disk cannot hold the data.
        """
        if self.shortage:
            raise ValueError(self.shortage)
        if self.lack_of_room:
            raise OSError(self.lack_of_room)

    @property
    def shortage(self) -> str | None:
        """Why there cannot be as many cells as are wanted, and what binds; None if there can."""
        wanted = self.recipe.cell_count
        if wanted is None or self.most_cells >= wanted:
            return None
        relief = ", ".join(f"{n} without {name}" for name, n in self.without.items())
        return (
            f"cell_count={wanted}, but the {self.matching[0]} experiments that pass the filters "
            f"hold at most {self.most_cells} cells{f' ({relief})' if relief else ''}: lower "
            "cell_count, loosen filters, or raise max_cells_per_experiment"
        )

    @property
    def lack_of_room(self) -> str | None:
        """What the disk lacks even in the best case; None if it can hold the data."""
        if self.best.least_bytes <= self.free_bytes:
            return None
        return (
            f"{self.data_dir} has {describe_size(self.free_bytes)} free, the run needs about "
            f"{describe_size(self.best.least_bytes)}: free some, set data_dir to a larger disk, or "
            "lower cell_count"
        )

    def __str__(self) -> str:
        best = self.best
        likely = self.likely
        wanted = self.recipe.cell_count
        known = best == likely
        experiments = describe_number(likely.n_experiments, "experiment")
        drawn = f"{describe_number(likely.n_cells, 'cell')} of {experiments}"
        if not known:
            drawn += f" if {self.passing:.0%} of the cells pass QC ({best.n_experiments:,} if all)"
        fetched = describe_size(likely.fetch_bytes)
        if not known:
            fetched += f" ({describe_size(best.fetch_bytes)} if all)"
        lines = [
            ("source", ", ".join(str(v) for v in self.recipe.source.settings().values())),
            ("catalog", _of_experiments(*self.in_catalog)),
            ("match the filters", _of_experiments(*self.matching)),
            ("cells kept", f"{self.recipe.quality}{_describe_filters(self.recipe)}"),
            ("draw", drawn),
        ]
        if wanted is not None and likely.n_cells < wanted <= self.most_cells:
            lines.append(("", f"that is fewer than cell_count={wanted:,}: loosen filters or QC"))
        if likely.n_per_split is not None:
            parts = [f"{n:,} {name}" for name, n in likely.n_per_split.items()]
            lines.append(("split", " + ".join(parts)))
            try:
                check_sizes(self.recipe.split, [*likely.n_per_split.values()])
            except ValueError as error:
                lines.append(("", str(error)))
        lines += [
            ("shards", _describe_shards(likely)),
            ("to fetch", fetched),
            (
                "on disk",
                f"{describe_size(likely.peak_bytes)} at peak, "
                f"{describe_size(likely.end_bytes)} at the end; "
                f"{describe_size(likely.new_bytes)} to come, {describe_size(self.free_bytes)} free",
            ),
            *(
                ("costs most" if i == 0 else "", f"{describe_size(n_bytes):>8}  {text}")
                for i, (n_bytes, text) in enumerate(likely.costs)
            ),
        ]
        obstacles = [text for text in (self.shortage, self.lack_of_room) if text]
        lines += [("cannot be", text) for text in obstacles]
        return "\n".join(f"{name:18} {text}".rstrip() for name, text in lines)


def make_plan(
    recipe: Recipe,
    directory: DataDirectory,
    catalog: pa.Table,
    options: PrepareOptions,
) -> Plan:
    """Work out what `prepare` would do with a catalog; see `Plan`."""
    candidates = filter_catalog(catalog, recipe.filters, recipe.exclude, directory.metadata)
    group_experiments(candidates, recipe.batch_key, [])  # says at once if there is no such column
    forecast = Forecast(recipe, directory, candidates, options)
    return Plan(
        recipe=recipe,
        data_dir=directory.path,
        candidates=candidates,
        in_catalog=_count(catalog),
        matching=_count(candidates),
        most_cells=forecast.count_cells(),
        passing=forecast.passing,
        best=forecast.draw(1.0),
        likely=forecast.draw(forecast.passing),
        without=_count_without(recipe, catalog),
        free_bytes=shutil.disk_usage(directory.path).free,
    )


def _count(table: pa.Table) -> tuple[int, int]:
    return len(table), sum_cells(table, None)


def _count_without(recipe: Recipe, catalog: pa.Table) -> dict[str, int]:
    """Cells that there would be at most without each single setting that takes some away."""
    cap = recipe.max_cells_per_experiment
    passes = match_conditions(catalog, recipe.filters, recipe.exclude)

    def passing(names: Iterable[str]) -> NDArray[np.bool_]:
        keep = np.ones(len(catalog), dtype=bool)
        for name in names:
            keep &= passes[name]
        return keep

    counts = {name: sum_cells(catalog, cap, passing(set(passes) - {name})) for name in passes}
    if cap is not None:
        counts["max_cells_per_experiment"] = sum_cells(catalog, None, passing(passes))
    return counts


def _describe_filters(recipe: Recipe) -> str:
    filters = recipe.cell_filters
    return f"; where {dict(filters)}" if filters else ""


def _describe_shards(forecast: DrawForecast) -> str:
    """The format that shards get, and what they would take in the other."""
    sizes = {name: describe_size(n_bytes) for name, n_bytes in forecast.shard_bytes.items()}
    chosen = forecast.shard_format
    others = ", ".join(f"{name} about {size}" for name, size in sizes.items() if name != chosen)
    return f"{chosen}, about {sizes[chosen]} ({others})"


def _of_experiments(n_experiments: int, n_cells: int) -> str:
    return f"{describe_number(n_experiments, 'experiment')}, {describe_number(n_cells, 'cell')}"
