"""Settings: checked one by one, made plain, and what an archive depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from scdiff_data.archive import QualityFilter
from scdiff_data.base import digest
from scdiff_data.executors import check_executor
from scdiff_data.genes import NamedGenes
from scdiff_data.reading import strip_versions
from scdiff_data.sources import CatalogRow, FileLayout
from scdiff_data.store import SCHEMA_VERSION

GENE_AXES = ("first", "union", "intersection", "source")
"""Ways to find the genes that all archives share."""

PLAIN = (
    *("cell_count", "seed", "max_cells_per_experiment", "min_genes", "min_counts", "max_genes"),
    *("max_mito_pct", "min_pass_fraction", "min_cells"),
    *("n_hvgs", "min_cells_pct", "flavor", "normalize", "span", "batch_key", "fallback_min_genes"),
    *("shard_size", "shard_format", "max_failed_fraction"),
)
"""Settings that are plain values, in the order in which the manifest has them."""

CELL_COLUMNS = (
    *("cell_id", "experiment_id", "archive_row"),
    *("total_counts", "n_genes", "archived_counts"),
)
"""What is known of every cell beside its labels."""

_TAKE_WHAT_IS_THERE = frozenset(
    (
        *("cell_count", "max_failed_fraction", "shard_format"),
        *("n_hvgs", "min_cells_pct", "flavor", "normalize", "span", "batch_key", "genes"),
    )
)
"""Settings that may change in a finished directory: archives, draw and split are those there."""

_OUR_NAMES = (
    *("split", "shard", "row"),  # columns of the table of cells
    *("counts", "tokens", "expression", "gene_ids"),  # what batches carry
)
"""Names that labels cannot have, since something of ours has them."""


Stages = Literal["all", "download", "process"]
"""Which stages run: `download`, what needs the source; `process`, the rest; `all`, both."""


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How stages run: the same recipe gives the same bytes under any options.

    Parameters
    ----------
    n_threads
        Downloads at a time; threads that inflate, sum, sort and fill, as far as there are cores;
        and shards written at a time.
    max_memory
        Bytes that the conversion of one file may take, and then the shards, all threads together;
        at least 1 MiB. A file of which a single thing takes more is refused: see docs/trust.md.
    keep_downloads
        Whether source files stay in `downloads/` once they are archived.
    refresh_catalog
        Whether the catalog's snapshot is renewed.
    retry_failed
        Whether experiments that failed for good are tried again.
    replace
        Whether finished data of other settings may be replaced. Another number of cells, other
        genes or another format of shards need no leave: they take what is there.
    processed_url
        A bucket for what training reads, `gs://…`, `s3://…` or `file://…`: finished data are sent
        there. Where it has them already, `data_dir` becomes a local copy, and shards come when
        training asks for them. See docs/howto/bucket.md.
    local_limit
        Bytes that shards may take in such a copy, those on their way included: the least recently
        used ones leave. None keeps all.
    stages
        `download` fetches and archives, which needs the network, and stops. `process` makes the
        rest of what `download` left, and opens no network connection. `all` does both.
    executor
        Who does the work: `threads` of this process; `local` processes, see `LocalWorkers`; or
        what `DaskWorkers`, `SlurmWorkers` or any `concurrent.futures.Executor` has. `n_threads`
        and `max_memory` are then those of each task. None takes processes where there are more
        than two cores and 2 GB to fetch, else threads.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    n_threads: int = 4
    max_memory: int = 1 << 30
    keep_downloads: bool = False
    refresh_catalog: bool = False
    retry_failed: bool = False
    replace: bool = False
    processed_url: str | None = None
    local_limit: int | None = None
    stages: Stages = "all"
    executor: Any = None

    def __post_init__(self) -> None:
        if self.stages not in get_args(Stages):
            raise ValueError(
                f"stages must be one of {', '.join(get_args(Stages))}, got {self.stages!r}"
            )
        check_executor(self.executor)
        if self.stages == "process" and (self.refresh_catalog or self.retry_failed):
            raise ValueError(
                "stages=process opens no network connection: refresh_catalog and retry_failed go "
                "with stages=download or all"
            )
        if self.stages == "process" and self.processed_url is not None:
            raise ValueError(
                "stages=process opens no network connection: to send its result to processed_url, "
                "run the same with stages=all where there is a network"
            )
        check_whole_numbers({"local_limit": self.local_limit}, 1, or_none=True)
        if self.n_threads < 1 or self.max_memory < 1 << 20:
            raise ValueError(
                f"n_threads must be at least 1 and max_memory at least 1 MiB, got {self.n_threads} "
                f"and {self.max_memory}"
            )


def check_whole_numbers(values: dict[str, Any], least: int, *, or_none: bool = False) -> None:
    """Raise ValueError for what is no whole number of at least `least`."""
    for name, value in values.items():
        if value is None and or_none:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            null = " or null" if or_none and not least else ""
            raise ValueError(
                f"{name} must be a whole number of at least {least}{null}, got {value!r}"
            )


def check_range(values: dict[str, Any], low: float, high: float) -> None:
    """Raise ValueError for a number that is outside, both ends included; None is none."""
    for name, value in values.items():
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} must be in {low} … {high}, got {value}")


def read_words(labels: Sequence[str] | Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Of each label whose values are given, these; a ValueError if they repeat or are no list."""
    if not isinstance(labels, Mapping):
        return {}
    found = {}
    for name, words in labels.items():
        if words is None:
            continue
        if isinstance(words, str) or not words:
            raise ValueError(f"labels.{name} must list its values, or be null, got {words!r}")
        texts = tuple(
            str(word).lower() if isinstance(word, bool) else str(word).strip() for word in words
        )
        if len(set(texts)) < len(texts):
            raise ValueError(f"labels.{name} lists a value twice: {list(texts)}")
        found[name] = texts
    return found


def check_labels(labels: Sequence[str], columns: Sequence[str]) -> None:
    """Raise ValueError for names that labels or split.by cannot have."""
    if clash := set(columns) & set(CELL_COLUMNS):
        raise ValueError(
            f"labels or split.by name {sorted(clash)}, which every cell carries already"
        )
    if clash := set(labels) & set(_OUR_NAMES):
        raise ValueError(
            f"labels name {sorted(clash)}, which tables and batches use for something else: rename "
            "the column in obs"
        )
    if twice := sorted({name for name in labels if list(labels).count(name) > 1}):
        raise ValueError(f"labels name {twice} twice")
    for name in labels:
        if not name or "/" in name or "\0" in name or not set(name) - {"."}:
            raise ValueError(
                f"labels name {name!r}: the name of a label is no empty text and has no slash, "
                "since files are divided by it: rename the column in obs"
            )


def digest_archive(
    source_kind: str,
    row: CatalogRow,
    *,
    layout: FileLayout,
    quality: QualityFilter,
    cap: list[int] | None,
    cell_filters: Mapping[str, Any],
) -> str:
    """Fingerprint of all that a catalog row's archive depends on, but for the gene axis.

    Settings that came later are part of it only where they are not as ever.
    """
    later = {
        "counts": None if layout.counts == "X" else layout.counts,
        "gene_ids": layout.gene_ids,
        "unit": row.columns.get("unit"),
        "quality": quality.later_settings,
        "cell_filters": cell_filters,
    }
    changed = {name: value for name, value in later.items() if value}
    version = row.columns.get("version")
    return digest(
        [
            SCHEMA_VERSION,
            source_kind,
            [row.path, row.size, row.checksum, *([version] if version else [])],
            [quality.min_genes, quality.min_counts, quality.max_genes],
            cap,
            *([changed] if changed else []),
        ]
    )


def read_axis(
    axis: str | Path | Sequence[str] | Mapping[str, Any] | NamedGenes,
) -> str | NamedGenes:
    """A way to find the genes that all archives share, or their names."""
    if isinstance(axis, str) and axis in GENE_AXES:
        return axis
    if isinstance(axis, str | Path) and not Path(axis).is_file():
        raise ValueError(
            f"gene_axis must be one of {', '.join(GENE_AXES)}, a list or a file, got {axis!r}"
        )
    names = NamedGenes.read(axis)
    plain = strip_versions(names.names)
    if len(set(plain)) < len(plain):
        twice = next(gene for gene in plain if plain.count(gene) > 1)
        raise ValueError(f"gene_axis names {twice!r} twice: without versions, ids are unique")
    return names


def to_plain(value: Any) -> Any:
    """Mappings and sequences of any kind as dictionaries and lists, and whole numbers as int."""
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 5.0 means what 5 means, and some readers of YAML make it of that
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [to_plain(item) for item in value]
    return value


def plain_labels(
    labels: Sequence[str], words: Mapping[str, Sequence[str]]
) -> list[str] | dict[str, list[str] | None]:
    """Labels as a list of names, or where the values of one are fixed, with these."""
    if not words:
        return list(labels)
    return {name: list(words[name]) if name in words else None for name in labels}


def describe_difference(
    own: Mapping[str, Any], other: Mapping[str, Any], *, replaced_alone: bool = False
) -> str:
    """In which settings a directory's differ from a recipe's own.

    With `replaced_alone`, only those of which nothing that is there can be taken.
    """
    names = [name for name, value in own.items() if other.get(name, value) != value]
    if replaced_alone:
        names = [name for name in names if name not in _TAKE_WHAT_IS_THERE]
    described = []
    for name in names:
        here, there = own[name], other.get(name)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
            if keys == ["files"] and name == "source":
                described.append("source: its files have changed")
                continue
            here, there = ({k: found.get(k) for k in keys} for found in (here, there))
        described.append(f"{name}: {there!r} there, {here!r} here")
    return ", ".join(described)
