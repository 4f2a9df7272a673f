"""Which of the catalog's experiments the settings allow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scdiff_data.errors import CountError
from scdiff_data.sources.rows import Rows, choose_rows

MISSING = ("", "none", "not specified", "nan", "null")
"""LazyStrings, lower case, that mean no value."""


Condition = str | bool | float | Sequence[str | bool | float | None] | Mapping[str, float] | None
"""What a filter asks of a column, see `filter_catalog`."""


def normalize_text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lower case, no blanks around, and null for every text that means no value."""
    text = pc.utf8_lower(pc.utf8_trim_whitespace(values.cast(pa.string())))
    return pc.if_else(pc.is_in(text, pa.array(MISSING)), pa.scalar(None, pa.string()), text)


def filter_catalog(
    catalog: pa.Table,
    filters: Mapping[str, Condition],
    exclude: Mapping[str, Condition],
    folder: Path,
) -> pa.Table:
    """Keep the rows that meet every condition in `filters` and none in `exclude`.

    Many are kept in a file of `folder` that has no name, see `keep_aside`.

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
    return choose_rows(catalog, keep, folder)


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
        # In pieces: texts are copied more than once to be compared.
        parts = table[name].chunks or [pa.array([], table[name].type)]
        found = [_compare(pa.chunked_array([p]), name, condition, setting) for p in parts]
        return np.concatenate(found)
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


def sum_cells(catalog: pa.Table, cap: int | None, keep: NDArray[np.bool_] | None = None) -> int:
    """Cells of all experiments, or of some, of each at most `cap`."""
    n, at = 0, 0
    for chunk in catalog["n_cells"].chunks:
        n_cells = chunk.to_numpy(zero_copy_only=False)
        n_cells = n_cells if keep is None else n_cells[keep[at : at + len(chunk)]]
        n += int((n_cells if cap is None else np.minimum(n_cells, cap)).sum())
        at += len(chunk)
    return n


def group_experiments(
    catalog: pa.Table, column: str | None, names: Sequence[str]
) -> dict[str, str]:
    """Some experiments' values of a column, texts as filters compare them; "" without a column.

    Raises
    ------
    ValueError
        If the catalog has no such column.
    """
    if column is None:
        return dict.fromkeys(names, "")
    if column not in catalog.column_names:
        raise ValueError(
            f"batch_key names no column of the catalog: {column!r}; it has {catalog.column_names}"
        )
    if column == "experiment_id":
        return dict(zip(names, names, strict=True))
    rows = Rows(catalog)
    own = pa.array([rows[name].columns[column] for name in names], catalog[column].type)
    values = pc.fill_null(normalize_text(pa.chunked_array([own])), "missing")
    return dict(zip(names, values.to_pylist(), strict=True))
