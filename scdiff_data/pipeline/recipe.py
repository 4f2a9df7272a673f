"""What to prepare, checked before any work starts: all that decides what a directory holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scdiff_data.archive import QualityFilter
from scdiff_data.base import digest
from scdiff_data.genes import GeneSettings, NamedGenes
from scdiff_data.pipeline.checks import check_labels, check_whole_numbers
from scdiff_data.pipeline.split import Split
from scdiff_data.shards import SHARD_FORMATS
from scdiff_data.sources import CatalogRow, Condition, Source, StoredSource, layout_of
from scdiff_data.store import SCHEMA_VERSION

GENE_AXES = ("first", "union", "intersection")
"""Ways to find the genes that all archives share."""

_PLAIN = (
    *("cell_count", "seed", "max_cells_per_experiment", "min_genes", "min_counts", "max_genes"),
    *("n_hvgs", "min_cells_pct", "flavor", "normalize", "batch_key", "fallback_min_genes"),
    *("shard_size", "shard_format", "max_failed_fraction"),
)
"""Settings that are plain values, in the order in which the manifest has them."""


@dataclass(frozen=True, init=False)
class Recipe:
    """What to prepare. The same recipe and catalog give the same bytes.

    Parameters
    ----------
    source
        Where cells come from.
    cell_count
        Cells wanted, exactly, after QC; None takes every cell that passes.
    seed
        Of the draw, the split and the shuffle.
    filters, exclude
        Conditions on catalog columns, see `filter_catalog`.
    max_cells_per_experiment
        Cap, so that no study dominates; the cells are chosen by keyed hash. None has no cap.
    min_genes, min_counts, max_genes
        Quality filter, see `QualityFilter`; None does not filter.
    split
        `{by: experiment | cell | COLUMN, val: …, test: …}`, see `Split`.
    labels
        Columns of the cells or of the catalog that batches can carry.
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
    batch_key
        Column of the catalog, or `experiment_id`: genes are ranked within each of its values, and
        those chosen that are variable in most. None ranks them over all training cells.
    genes
        The genes to keep, in this order, in place of a choice: ids or symbols, a file of one a
        line, or another data set's `hvg_info.json`. Those that the data lack are zeros.
    fallback_min_genes
        Of a cell that expresses fewer of the chosen genes than this, empty places take its
        most expressed other genes, see `fill_empty`; 0 never does.
    shard_size
        Cells a shard.
    shard_format
        How counts lie in them: `dense`, int16 [n_cells, n_genes]; `compact`, only what is above 0;
        or `auto`, see `choose_format`: dense below 8 GiB, and where more than 20 % is above 0.
    gene_axis
        The genes that all archives share: `first`, those of the first experiment drawn; `union` or
        `intersection` of all files' genes, ordered by id; or ids: a list, or a file of one a line.
        Genes that a file lacks are zeros. None is the source's own: `first` for scBaseCount, whose
        files all have the same, `union` for own files.
    max_failed_fraction
        The run stops if more than this fraction of the experiments tried, or of their cells, is
        lost because files could not be read. None is the source's own: 0.1 for scBaseCount, once
        10 experiments were tried, and 0 for own files.

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
    n_hvgs: int | None
    min_cells_pct: float
    flavor: str
    normalize: bool
    batch_key: str | None
    fallback_min_genes: int
    shard_size: int
    shard_format: str
    max_failed_fraction: float | None
    split: Split
    labels: tuple[str, ...]
    genes: NamedGenes | None
    gene_axis: str | NamedGenes

    def __init__(
        self,
        *,
        source: Source,
        cell_count: int | None = None,
        seed: int = 42,
        filters: Mapping[str, Condition] | None = None,
        exclude: Mapping[str, Condition] | None = None,
        max_cells_per_experiment: int | None = None,
        min_genes: int | None = 300,
        min_counts: int | None = 500,
        max_genes: int | None = None,
        split: Mapping[str, Any] | Split | None = None,
        labels: Sequence[str] = ("cell_type",),
        n_hvgs: int | None = 2000,
        min_cells_pct: float = 0.1,
        flavor: str = "dispersion",
        normalize: bool = False,
        batch_key: str | None = None,
        genes: str | Path | Sequence[str] | NamedGenes | None = None,
        fallback_min_genes: int = 0,
        shard_size: int = 10_000,
        shard_format: str = "auto",
        gene_axis: str | Path | Sequence[str] | NamedGenes | None = None,
        max_failed_fraction: float | None = None,
    ) -> None:
        given = dict(locals())
        del given["self"]
        if isinstance(labels, str):
            raise ValueError(f"labels must be a list of names, got the text {labels!r}")
        if not isinstance(filters or {}, Mapping) or not isinstance(exclude or {}, Mapping):
            raise ValueError("filters and exclude must map columns of the catalog to values")
        parsed = {
            "filters": _plain(filters or {}),
            "exclude": _plain(exclude or {}),
            "split": split if isinstance(split, Split) else Split.from_mapping(split or {}),
            "labels": tuple(labels),
            "genes": None if genes is None else NamedGenes.read(genes),
            "gene_axis": _read_axis(gene_axis or layout_of(source).gene_axis),
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
        check_whole_numbers(of("seed", "fallback_min_genes"), 0)
        if self.max_failed_fraction is not None and not 0 <= self.max_failed_fraction <= 1:
            raise ValueError(
                f"max_failed_fraction must be in 0 … 1, got {self.max_failed_fraction}"
            )
        if self.shard_format not in SHARD_FORMATS:
            formats = ", ".join(SHARD_FORMATS)
            raise ValueError(f"shard_format must be one of {formats}, got {self.shard_format!r}")
        self.gene_settings  # noqa: B018 - checks them
        check_labels(self.labels, self.columns)

    @property
    def quality(self) -> QualityFilter:
        """The quality filter."""
        return QualityFilter(self.min_genes, self.min_counts, self.max_genes)

    @property
    def gene_settings(self) -> GeneSettings:
        """How genes are chosen."""
        return GeneSettings(
            n_hvgs=self.n_hvgs,
            min_cells_pct=self.min_cells_pct,
            flavor=self.flavor,
            normalize=self.normalize,
            batch_key=self.batch_key,
            genes=self.genes,
        )

    def archive_key(self, row: CatalogRow) -> str:
        """Fingerprint of everything but the gene axis that a catalog row's archive depends on."""
        quality, cap = self.quality, self.max_cells_per_experiment
        version = row.columns.get("version")
        layout = layout_of(self.source)
        places = {"counts": layout.counts, "gene_ids": layout.gene_ids}
        usual = {"counts": "X", "gene_ids": None}
        return digest(
            [
                SCHEMA_VERSION,
                self.source.settings()["source"],
                [row.path, row.size, row.checksum, *([version] if version else [])],
                [quality.min_genes, quality.min_counts, quality.max_genes],
                None if cap is None else [cap, self.seed],
                *([places] if places != usual else []),
            ]
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
        plain, axis = {name: getattr(self, name) for name in _PLAIN}, self.gene_axis
        return {
            "source": self.source.settings(),
            **plain,
            "filters": self.filters,
            "exclude": self.exclude,
            "split": self.split.settings(),
            "labels": list(self.labels),
            "genes": None if self.genes is None else self.genes.settings(),
            "gene_axis": axis if isinstance(axis, str) else axis.settings(),
        }

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], **changes: Any) -> "Recipe":
        """Build from what `settings` gave, with changes; its source names data, but opens none."""
        genes = {
            name: NamedGenes(tuple(names["hvg_names"]), tuple(names["hvg_symbols"]))
            for name in ("genes", "gene_axis")
            if isinstance(names := settings.get(name), Mapping)
        }
        source = StoredSource(settings["source"])
        return cls(**({**settings, **genes, "source": source} | changes))

    @property
    def digest(self) -> str:
        """Fingerprint of the settings that decide the bytes on disk, and of the schema version."""
        return _digest_settings(self.settings())

    def makes_what(self, settings: Mapping[str, Any]) -> bool:
        """Whether a recipe of which `settings` gave these, or a manifest, made the same bytes."""
        return self.digest == _digest_settings(settings)

    def allows(self, shard_format: str) -> bool:
        """Whether shards of this format do: with `auto`, a converted directory does, too."""
        return self.shard_format in ("auto", shard_format)

    def describe_difference(self, settings: Mapping[str, Any]) -> str:
        """In which settings a directory made with other ones differs from this recipe."""
        own = self.settings()
        names = [name for name, value in own.items() if settings.get(name, value) != value]
        parts = (f"{name}: {settings.get(name)!r} there, {own[name]!r} here" for name in names)
        return ", ".join(parts)


def _digest_settings(settings: Mapping[str, Any]) -> str:
    # When a run gives up does not change what it makes, so this one counts as its default, which
    # older directories' fingerprints were taken with. How counts lie does not change them either.
    # Nor did older directories know of gene axes other than the first experiment's.
    decisive = {name: value for name, value in settings.items() if name != "shard_format"}
    if decisive.get("gene_axis") == "first":
        del decisive["gene_axis"]
    return digest([SCHEMA_VERSION, {**decisive, "max_failed_fraction": 0.1}])


def _read_axis(axis: str | Path | Sequence[str] | NamedGenes) -> str | NamedGenes:
    return axis if isinstance(axis, str) and axis in GENE_AXES else NamedGenes.read(axis)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
