"""The frames of an AnnData file, its cells and genes, whatever version or language wrote them.

    since 0.7     obs is a group: a dataset or group for each column; `_index` names the index
    before 0.7    obs is one dataset of records, texts as bytes, the first field the index

Categories lie in a column's own group; in files of 0.7, in `obs/__categories`; in older ones, in
`uns/NAME_categories`. (Source: "On-disk format" in anndata's documentation, and its readers of
older files.)
"""

import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scdiff_data.errors import CountError, UnsafeFileError
from scdiff_data.opening import (
    check_allowance,
    decode_text,
    explain,
    read_text,
    read_texts,
    release,
)

logger = logging.getLogger(__name__)


class Frame:
    """`obs` or `var`, read column by column.

    Parameters
    ----------
    path
        The file, for the errors.
    element
        Its group or dataset.
    uns
        The file's `uns`, where old files keep categories; None without.

    Attributes
    ----------
    columns
        Names of its columns.

    Raises
    ------
    CountError
        If it has no index; where its names are read, if one is missing or no text in UTF-8.
    """

    def __init__(
        self, path: Path, element: h5py.Group | h5py.Dataset, uns: h5py.Group | None = None
    ) -> None:
        self._path, self._element, self._uns = path, element, uns
        self._name = element.name.strip("/")
        self._index: Any = None
        with explain(path, f"the index of {self._name}"):
            if isinstance(element, h5py.Dataset):
                if element.dtype.names is None or element.ndim != 1:
                    raise CountError(f"{path.name}: {self._name} is no frame of rows")
                self._records = element[:]
                index_name, *self.columns = element.dtype.names
                self._index = self._records[index_name]
                self._n_rows = len(self._records)
            else:
                index_name, self.columns = self._find_index(element)
                self._index = element[index_name]
                is_group = isinstance(self._index, h5py.Group)
                values = self._index.get("values", self._index) if is_group else self._index
                values = values["codes"] if isinstance(values, h5py.Group) else values
                if values.ndim != 1:
                    raise CountError(f"{path.name}: the index of {self._name} is no list")
                self._n_rows = len(values)
                # Before anything is read: whoever asks for their number alone believes it.
                check_allowance(element, f"has {self._n_rows:,} rows, which take", 8 * len(values))

    def __len__(self) -> int:
        return self._n_rows

    @cached_property
    def index(self) -> pd.Index:
        """Names of its rows, texts."""
        with explain(self._path, f"the index of {self._name}"):
            is_read = isinstance(self._index, np.ndarray)
            values = _decode(self._index) if is_read else _read_values(self._index)
            names = np.asarray(values, object)
            if pd.isna(names).any():
                raise CountError(f"{self._path.name}: a name of {self._name} is missing")
            texts = [decode_text(name) for name in names]
            return pd.Index(pd.array(texts, dtype="string[pyarrow]"))  # a third of texts as objects

    def _find_index(self, group: h5py.Group) -> tuple[str, list[str]]:
        index_name = read_text(group.attrs, "_index")
        if index_name is None or index_name not in group:
            missing = "no attribute _index" if index_name is None else f"no index {index_name!r}"
            raise CountError(
                f"{self._path.name} is no AnnData file: {self._name} has {missing}, which names "
                "its rows"
            )
        columns = read_texts(group.attrs, "column-order")
        if columns is None:
            columns = [name for name in group if name not in (index_name, "__categories")]
        return index_name, columns  # the index may be one of them, too

    def read(self, name: str) -> pd.Series:
        """One column, text as str, missing values as None or NaN.

        Raises
        ------
        CountError
            If it cannot be read, or has another length than the frame.
        """
        return self._as_column(name, self._read_raw(name))

    def _read_raw(self, name: str) -> Any:
        with explain(self._path, f"{self._name}/{name}"):
            if isinstance(self._element, h5py.Dataset):
                return _decode(self._records[name])
            if name in self.columns and name in self._element:
                return _read_values(self._element[name])
            raise CountError(f"{self._path.name}: {self._name}/{name} is missing")

    def _as_column(self, name: str, values: Any) -> pd.Series:
        with explain(self._path, f"{self._name}/{name}"):
            if np.ndim(values) != 1 or len(values) != len(self):  # or no array at all
                raise CountError(
                    f"{self._path.name} is damaged: {self._name}/{name} has shape "
                    f"{np.shape(values)}, {self._name} has {len(self)} rows"
                )
            return pd.Series(self._find_words(name, values), self.index, name=name)

    def _find_words(self, name: str, values: Any) -> Any:
        """The words of codes whose categories lie in `uns`, as files before 0.7 have them."""
        key = f"{name}_categories"
        is_code = isinstance(values, np.ndarray) and values.dtype.kind in "iu"
        is_code &= isinstance(self._element, h5py.Dataset)  # newer files say it in the column
        if self._uns is None or key not in self._uns or not is_code:
            return values
        words = np.atleast_1d(_read_values(self._uns[key]))
        if len(values) and int(values.max()) >= len(words):
            return values  # of the other frame: anndata tells them apart likewise
        return pd.Categorical.from_codes(np.maximum(values.astype(np.int64), -1), pd.Index(words))

    def read_all(self, *, needed: Sequence[str] = ()) -> pd.DataFrame:
        """All columns; those that cannot be read are left out and logged, but for what is needed.

        Raises
        ------
        CountError
            If a needed column cannot be read, or a column has another length than the frame.
        UnsafeFileError
            If any leads out of the file, or all together take more memory than is allowed.
        """
        found: dict[str, pd.Series] = {}
        n_bytes = 0
        for name in self.columns:
            try:
                values = self._read_raw(name)
            except CountError as error:
                if name in needed or isinstance(error, UnsafeFileError):
                    raise
                logger.warning("a column is left out: %s", error)
            else:
                found[name] = self._as_column(name, values)
                n_bytes += found[name].memory_usage(index=False)
                check_allowance(self._element, "has columns of more than", n_bytes)
        return pd.DataFrame(found, index=self.index)


def _read_values(element: h5py.Group | h5py.Dataset) -> Any:
    """A column's values: a numpy array, or a pandas array where some are missing."""
    if isinstance(element, h5py.Dataset):
        values = _decode(element[()])
        says_texts = read_text(element.attrs, "encoding-type") == "string-array"
        if says_texts and values.dtype.kind not in "OU":
            raise ValueError(f"it is said to hold texts, and holds {values.dtype}")
        if "categories" in element.attrs:  # of anndata 0.7: a reference to the words
            words = _read_values(element.file[element.attrs["categories"]])
            return pd.Categorical.from_codes(values, pd.Index(np.atleast_1d(words)))
        return values
    encoding = read_text(element.attrs, "encoding-type") or ""
    if encoding == "categorical" or {"codes", "categories"} <= set(element):
        words = _read_values(element["categories"])
        is_ordered = bool(np.any(element.attrs.get("ordered", False)))
        index = pd.Index(words if isinstance(words, np.ndarray) else np.asarray(words, object))
        return pd.Categorical.from_codes(_read_values(element["codes"]), index, ordered=is_ordered)
    if {"values", "mask"} <= set(element):
        values, is_missing = _read_values(element["values"]), element["mask"][()].astype(bool)
        if values.dtype.kind in "iu":
            return pd.arrays.IntegerArray(values, is_missing)
        if values.dtype.kind == "f":
            return pd.arrays.FloatingArray(values, is_missing)
        if values.dtype.kind == "b":
            return pd.arrays.BooleanArray(values, is_missing)
        values = values.astype(object)
        values[is_missing] = None
        return values
    from anndata.io import read_elem

    return read_elem(release(element))


def _decode(values: Any) -> Any:
    """Numbers in the machine's order, texts as str."""
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind in "OS":
        flat = [text.decode() if isinstance(text, bytes) else text for text in array.reshape(-1)]
        texts = np.empty(len(flat), object)
        texts[:] = flat
        return texts.reshape(array.shape)
    if array.dtype.names is not None or array.dtype.kind not in "biufcU":
        raise ValueError(f"values of the type {array.dtype} are not read")
    return array.astype(array.dtype.newbyteorder("="), copy=False)
