"""The catalog's experiments, and which of them the settings allow."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scdiff_data.base import digest
from scdiff_data.errors import CountError

MISSING = ("", "none", "not specified", "nan", "null")
"""LazyStrings, lower case, that mean no value."""


CATALOG_COLUMNS = ["experiment_id", "path", "n_cells", "size", "checksum"]
"""What every catalog has; a snapshot that was taken with others is taken anew."""


@dataclass(frozen=True, slots=True)
class CatalogRow:
    """An experiment, as the catalog has it.

    Parameters
    ----------
    experiment_id
        Its id.
    path
        Its h5ad file, relative to the source's url.
    n_cells
        Cells in that file.
    size, checksum
        Bytes of that file, and `md5:HEX` or `crc32c:HEX` of them; None where the source does not
        say.
    columns
        Every column of the catalog, these among them: what filters and labels may name.
    """

    experiment_id: str
    path: str
    n_cells: int
    size: int | None
    checksum: str | None
    columns: Mapping[str, Any]

    @property
    def local_name(self) -> str:
        """Name of the fetched file, which many experiments may be in."""
        is_shared = self.columns.get("unit") is not None
        return f"{digest([self.path]) if is_shared else self.experiment_id}.h5ad"


class _Columns(Mapping[str, Any]):
    """A row's columns, made when they are asked for: most of many thousand rows never are."""

    __slots__ = ("_columns", "_row")

    def __init__(self, columns: Mapping[str, pa.ChunkedArray], row: int) -> None:
        self._columns, self._row = columns, row

    def __getitem__(self, name: str) -> Any:
        return self._columns[name][self._row].as_py()

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # the row alone, not the catalog


def read_rows(table: pa.Table) -> dict[str, CatalogRow]:
    """The rows of a catalog, in its order, by their experiment."""
    table = table.combine_chunks()
    columns = dict(zip(table.column_names, table.columns, strict=True))
    own = zip(*(columns[name].to_pylist() for name in CATALOG_COLUMNS), strict=True)
    return {
        name: CatalogRow(name, path, n_cells, size, checksum, _Columns(columns, row))
        for row, (name, path, n_cells, size, checksum) in enumerate(own)
    }


Condition = str | bool | float | Sequence[str | bool | float | None] | Mapping[str, float] | None
"""What a filter asks of a column, see `filter_catalog`."""


def normalize_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lower case, no blanks around, and null for every text that means no value."""
    text = pc.utf8_lower(pc.utf8_trim_whitespace(values.cast(pa.string())))
    return pc.if_else(pc.is_in(text, pa.array(MISSING)), pa.scalar(None, pa.string()), text)


def filter_catalog(
    catalog: pa.Table, filters: Mapping[str, Condition], exclude: Mapping[str, Condition]
) -> pa.Table:
    """Keep the rows that meet every condition in `filters` and none in `exclude`.

    A condition is a value or a list of values (text is compared without case; None matches a
    missing value), or for numbers a range `{min: …, max: …}`, both ends included.

    Raises
    ------
    ValueError
        If a column does not exist, a range is given for text, or no experiment is left.
    """
    passes = match_conditions(catalog, filters, exclude)
    keep = np.logical_and.reduce([np.ones(len(catalog), dtype=bool), *passes.values()])
    if not keep.any():
        alone = ", ".join(f"{name} alone {passed.sum()}" for name, passed in passes.items())
        raise ValueError(
            f"none of the catalog's {len(catalog)} experiments passes filters={dict(filters)} and "
            f"exclude={dict(exclude)} ({alone} of them): loosen them"
        )
    return catalog.filter(pa.array(keep))


def match_conditions(
    catalog: pa.Table, filters: Mapping[str, Condition], exclude: Mapping[str, Condition]
) -> dict[str, NDArray[np.bool_]]:
    """Whether each row passes each single condition, by the name of its setting; bool [n_rows].

    Raises
    ------
    ValueError
        If a column does not exist, or a range is given for text.
    """
    passes = {f"filters.{n}": _match(catalog, n, c, "filters") for n, c in filters.items()}
    return passes | {f"exclude.{n}": ~_match(catalog, n, c, "exclude") for n, c in exclude.items()}


def read_named(obs: pd.DataFrame, name: str | None, named_by: str) -> pd.Series:
    """The cells' column that a setting names; a CountError if they have no such column."""
    if name not in obs:
        raise CountError(
            f"{named_by} {name!r}, which the file's cells do not have; they have "
            f"{sorted(map(str, obs))}"
        )
    return obs[name]


def match_cells(obs: pd.DataFrame, filters: Mapping[str, Condition]) -> NDArray[np.bool_]:
    """Whether each cell passes every condition on its columns, bool [n_cells].

    Raises
    ------
    CountError
        If the cells have no such column.
    ValueError
        If a range is given for text.
    """
    passes = np.ones(len(obs), bool)
    for name, condition in filters.items():
        column = read_named(obs, name, "cell_filters name")
        if isinstance(column.dtype, pd.CategoricalDtype) and pd.api.types.is_numeric_dtype(
            column.cat.categories
        ):
            column = column.astype(np.float64)
        if column.dtype == np.float16:  # which pyarrow does not compare
            column = column.astype(np.float32)
        is_number = pd.api.types.is_numeric_dtype(column) and column.dtype != bool
        values = column if is_number else column.astype("string").astype(object)
        table = pa.table({name: pa.array(values, from_pandas=True)})
        passes &= _match(table, name, condition, "cell_filters")
    return passes


def _match(table: pa.Table, name: str, condition: Condition, setting: str) -> NDArray[np.bool_]:
    if name not in table.column_names:
        raise ValueError(
            f"{setting} names no column of the catalog: {name!r}; it has {table.column_names}. "
            "Columns of cells are for cell_filters"
        )
    try:
        return _compare(table[name], name, condition, setting)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise ValueError(
            f"{setting}.{name}={condition!r} does not fit a column of {table[name].type}: {error}"
        ) from error


def _to_number(value: Any) -> float:
    try:
        return float(value)
    except ValueError as error:
        raise TypeError(str(error)) from error


def _compare(
    column: pa.ChunkedArray, name: str, condition: Condition, setting: str
) -> NDArray[np.bool_]:
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if isinstance(condition, Mapping):
        if not is_number or not condition or set(condition) - {"min", "max"}:
            raise ValueError(
                f"{setting}.{name}={dict(condition)}: a range is {{min: …, max: …}} on a column of "
                f"numbers; this one is {column.type}"
            )
        bounds = condition.get("min", -np.inf), condition.get("max", np.inf)
        if not all(isinstance(bound, int | float) for bound in bounds):
            raise TypeError(f"the ends of a range are numbers, got {dict(condition)}")
        low, high = map(float, bounds)
        column = column.cast(pa.float64(), safe=False)
        matched = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
    else:
        is_list = isinstance(condition, Sequence) and not isinstance(condition, str)
        wanted: list[Any] = list(condition) if is_list else [condition]  # type: ignore[arg-type]
        if is_number:
            values: Any = pa.array(
                [None if v is None else _to_number(v) for v in wanted], pa.float64()
            )
            column = column.cast(pa.float64(), safe=False)
        else:
            values = normalize_text(
                pa.chunked_array([pa.array([None if v is None else str(v) for v in wanted])])
            )
            values = values.combine_chunks()
            column = normalize_text(column)
        matched = pc.is_in(column, values)
    return np.asarray(
        pc.fill_null(matched, fill_value=False).to_numpy(zero_copy_only=False), dtype=bool
    )


def group_experiments(catalog: pa.Table, column: str | None) -> dict[str, str]:
    """Each experiment's value of a column, texts as filters compare them; "" without a column.

    Raises
    ------
    ValueError
        If the catalog has no such column.
    """
    ids = catalog["experiment_id"].to_pylist()
    if column is None:
        return dict.fromkeys(ids, "")
    if column not in catalog.column_names:
        raise ValueError(
            f"batch_key names no column of the catalog: {column!r}; it has {catalog.column_names}"
        )
    if column == "experiment_id":
        return dict(zip(ids, ids, strict=True))
    values = pc.fill_null(normalize_text(catalog[column]), "missing")
    return dict(zip(ids, values.to_pylist(), strict=True))
