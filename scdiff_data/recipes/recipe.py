"""What to prepare, checked before any work starts: all that decides what a directory holds."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from scdiff_data.archive import QualityFilter
from scdiff_data.genes import GeneSettings, NamedGenes
from scdiff_data.recipes.settings import (
    PLAIN,
    check_labels,
    check_range,
    check_whole_numbers,
    describe_difference,
    digest_archive,
    plain_labels,
    read_axis,
    read_words,
    to_plain,
)
from scdiff_data.recipes.split import Split
from scdiff_data.shards import SHARD_FORMATS
from scdiff_data.sources import CatalogRow, Condition, Source, StoredSource, layout_of
from scdiff_data.store import digest_settings


@dataclass(frozen=True, init=False)
class Recipe:
    """What to prepare. The same recipe and catalog give the same bytes.

    Parameters
    ----------
    source
        Where cells come from; or what its `settings` gave, of a directory that has its cells.
    cell_count
        Cells wanted, exactly, after QC; None takes every cell that passes.
    seed
        Of the draw, the split and the shuffle.
    filters, exclude
        Conditions on columns of the catalog: `{column: value, [values] or {min: …, max: …}}`.
    max_cells_per_experiment
        Cap, so that no study dominates; cells are chosen by keyed hash. None has no cap.
    min_genes, min_counts, max_genes
        Quality filter, see `QualityFilter`; None does not filter.
    max_mito_pct, mito_genes
        Highest percentage of a cell's counts in mitochondrial genes (None does not filter), and
        which these are: what their symbols begin with, or a list.
    min_pass_fraction, min_cells
        An experiment of whose cells a smaller fraction, or of which fewer, pass is left out.
    cell_filters
        Conditions on columns of the cells, as `filters` has them on columns of the catalog.
    split
        `{by: experiment | cell | COLUMN, val: …, test: …}`, see `Split`.
    labels
        Columns of the cells or of the catalog that batches can carry: names, or `{name: values}`,
        whose values get the codes 0, 1, … for ever; without (None) see `word_order`.
    n_hvgs
        Genes to choose; None keeps all.
    min_cells_pct
        Percentage of training cells that must express a chosen gene, 0 to 100: 0.1 is 0.1 %.
    flavor
        How genes are ranked: `dispersion` (variance/mean of counts), or as scanpy does, `seurat`,
        `cell_ranger` or `seurat_v3` (which needs scikit-misc).
    normalize
        For `dispersion`: whether counts are scaled to 10,000 a cell first, so that experiments of
        different depths do not look variable. `seurat` and `cell_ranger` always do.
    span
        For `seurat_v3`: the fraction of the genes that each point of its curve is fitted to.
    batch_key
        Column of the catalog, or `experiment_id`: genes are ranked within each of its values, and
        those chosen that are variable in most. None ranks them over all training cells.
    genes
        The genes to keep, in this order, in place of a choice: ids or symbols, a file of one a
        line, or another data set's `hvg_info.json`. Those that the data lack are zeros.
    fallback_min_genes
        In cells with fewer of the chosen genes, others take empty places, see `fill_empty`.
    shard_size
        Cells a shard.
    shard_format
        How counts lie in them: `dense`, int16 [n_cells, n_genes]; `compact`, only what is above 0;
        or `auto`, see `choose_format`: dense below 8 GiB, and where more than 20 % is above 0.
    gene_axis
        The genes that all archives share: `first`, those of the first experiment drawn; `union` or
        `intersection` of all files', ordered by id; a list of ids, or a file of one a line. Genes
        that a file lacks are zeros. None: `first` for scBaseCount, `union` for own files.
    max_failed_fraction
        The run stops if more than this fraction of the experiments tried, or of their cells, is
        lost. None is the source's own: 0.1 for scBaseCount once 10 were tried, 0 for own files.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    source: Source
    cell_count: int | None
    seed: int
    filters: Mapping[str, Condition]
    exclude: Mapping[str, Condition]
    max_cells_per_experiment: int | None
    min_genes: int | None
    min_counts: int | None
    max_genes: int | None
    max_mito_pct: float | None
    mito_genes: str | tuple[str, ...]
    min_pass_fraction: float
    min_cells: int
    cell_filters: Mapping[str, Condition]
    n_hvgs: int | None
    min_cells_pct: float
    flavor: str
    normalize: bool
    span: float
    batch_key: str | None
    fallback_min_genes: int
    shard_size: int
    shard_format: str
    max_failed_fraction: float | None
    split: Split
    labels: tuple[str, ...]
    label_words: Mapping[str, tuple[str, ...]]
    genes: NamedGenes | None
    gene_axis: str | NamedGenes

    def __init__(
        self,
        *,
        source: Source | Mapping[str, Any],
        cell_count: int | None = None,
        seed: int = 42,
        filters: Mapping[str, Condition] | None = None,
        exclude: Mapping[str, Condition] | None = None,
        max_cells_per_experiment: int | None = None,
        min_genes: int | None = 300,
        min_counts: int | None = 500,
        max_genes: int | None = None,
        max_mito_pct: float | None = None,
        mito_genes: str | Sequence[str] = "MT-",
        min_pass_fraction: float = 0.0,
        min_cells: int = 0,
        cell_filters: Mapping[str, Condition] | None = None,
        split: Mapping[str, Any] | Split | None = None,
        labels: Sequence[str] | Mapping[str, Sequence[str] | None] = ("cell_type",),
        n_hvgs: int | None = 2000,
        min_cells_pct: float = 0.1,
        flavor: str = "dispersion",
        normalize: bool = False,
        span: float = 0.3,
        batch_key: str | None = None,
        genes: str | Path | Sequence[str] | Mapping[str, Any] | NamedGenes | None = None,
        fallback_min_genes: int = 0,
        shard_size: int = 10_000,
        shard_format: str = "auto",
        gene_axis: str | Path | Sequence[str] | Mapping[str, Any] | NamedGenes | None = None,
        max_failed_fraction: float | None = None,
    ) -> None:
        given = dict(locals())
        del given["self"]
        if isinstance(labels, str):
            raise ValueError(f"labels must be a list of names, got the text {labels!r}")
        if not all(isinstance(f or {}, Mapping) for f in (filters, exclude, cell_filters)):
            raise ValueError("filters, exclude and cell_filters must map columns to values")
        own = StoredSource(source) if isinstance(source, Mapping) else source
        parsed: dict[str, Any] = {
            "source": own,
            "filters": to_plain(filters or {}),
            "exclude": to_plain(exclude or {}),
            "cell_filters": to_plain(cell_filters or {}),
            "max_mito_pct": to_plain(max_mito_pct),
            "mito_genes": mito_genes if isinstance(mito_genes, str) else tuple(mito_genes),
            "split": split if isinstance(split, Split) else Split.from_mapping(split or {}),
            "labels": tuple(labels),
            "label_words": read_words(labels),
            "genes": None if genes is None else NamedGenes.read(genes),
            "gene_axis": read_axis(layout_of(own).gene_axis if gene_axis is None else gene_axis),
        }
        for name, value in (given | parsed).items():
            object.__setattr__(self, name, value)  # frozen from here on
        self._check()

    def _check(self) -> None:
        def of(*names: str) -> dict[str, Any]:
            return {name: getattr(self, name) for name in names}

        at_least_one = of("cell_count", "max_cells_per_experiment", "n_hvgs")
        check_whole_numbers(at_least_one, 1, or_none=True)
        check_whole_numbers(of("shard_size"), 1)
        check_whole_numbers(of("min_genes", "min_counts", "max_genes"), 0, or_none=True)
        check_whole_numbers(of("seed", "fallback_min_genes", "min_cells"), 0)
        check_range(of("max_failed_fraction", "min_pass_fraction"), 0, 1)
        check_range(of("max_mito_pct"), 0, 100)
        if self.shard_format not in SHARD_FORMATS:
            formats = ", ".join(SHARD_FORMATS)
            raise ValueError(f"shard_format must be one of {formats}, got {self.shard_format!r}")
        self.gene_settings  # noqa: B018 - checks them
        check_labels(self.labels, self.columns)

    @property
    def quality(self) -> QualityFilter:
        """The quality filter."""
        return QualityFilter(
            self.min_genes,
            self.min_counts,
            self.max_genes,
            self.max_mito_pct,
            self.mito_genes,
            self.min_pass_fraction,
            self.min_cells,
        )

    @property
    def gene_settings(self) -> GeneSettings:
        """How genes are chosen."""
        return GeneSettings(**{f.name: getattr(self, f.name) for f in fields(GeneSettings)})

    @cached_property
    def _source_kind(self) -> Any:
        """Kind of the source; its settings, which may list files, are too dear for every row."""
        return self.source.settings()["source"]

    def archive_key(self, row: CatalogRow) -> str:
        """Fingerprint of everything but the gene axis that a catalog row's archive depends on."""
        cap = self.max_cells_per_experiment
        return digest_archive(
            self._source_kind,
            row,
            layout=layout_of(self.source),
            quality=self.quality,
            cap=None if cap is None else [cap, self.seed],
            cell_filters=self.cell_filters,
        )

    @property
    def n_kept(self) -> int | None:
        """Genes that a cell of the shards has; None is all."""
        return self.n_hvgs if self.genes is None else len(self.genes.names)

    @property
    def columns(self) -> list[str]:
        """Columns of the cells or of the catalog that are needed: the labels, and the split's."""
        by = self.split.by
        is_own = self.split.by_hash or by == "experiment_id"
        is_extra = not is_own and by not in self.labels
        return [*self.labels, by] if is_extra else list(self.labels)

    def settings(self) -> dict[str, Any]:
        """Plain JSON values, for the manifest."""
        axis, names = self.gene_axis, self.mito_genes
        known = {
            "source": self.source.settings(),
            **{name: getattr(self, name) for name in PLAIN},
            "filters": self.filters,
            "exclude": self.exclude,
            "mito_genes": names if isinstance(names, str) else list(names),
            "cell_filters": self.cell_filters,
            "split": self.split.settings(),
            "labels": plain_labels(self.labels, self.label_words),
            "genes": None if self.genes is None else self.genes.settings(),
            "gene_axis": axis if isinstance(axis, str) else axis.settings(),
        }
        return dict(to_plain(known))

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], **changes: Any) -> "Recipe":
        """Build from what `settings` gave, with changes; its source names data, but opens none."""
        return cls(**{**settings, **changes})

    def of_source(self, source: Source) -> "Recipe":
        """The same recipe, of another object for the same data."""
        other = copy(self)
        vars(other).pop("_source_kind", None)
        vars(other)["source"] = source
        return other

    @property
    def digest(self) -> str:
        """Fingerprint of the settings that decide the bytes on disk, and of the schema version."""
        return digest_settings(self.settings())

    def makes_what(self, settings: Mapping[str, Any]) -> bool:
        """Whether a recipe of which `settings` gave these, or a manifest, made the same bytes."""
        return self.digest == digest_settings(to_plain(settings))

    def allows(self, shard_format: str) -> bool:
        """Whether shards of this format do: with `auto`, a converted directory does, too."""
        return self.shard_format in ("auto", shard_format)

    def describe_difference(
        self, settings: Mapping[str, Any], *, replaced_alone: bool = False
    ) -> str:
        """In which settings a directory made with other ones differs from this recipe.

        With `replaced_alone` without those that take what is there, see `PrepareOptions`.
        """
        return describe_difference(self.settings(), settings, replaced_alone=replaced_alone)
