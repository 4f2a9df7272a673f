"""The cells of archives, read by ranges of rows: of millions, a frame would not fit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from scdiff_data.archive.word_order import append_words, merge_words, sort_naturally


class ObsReader:
    """An archive's `obs`, open for reading; a context manager.

    Parameters
    ----------
    path
        The archive.

    Attributes
    ----------
    columns
        Names of its columns.
    """

    def __init__(self, path: Path) -> None:
        self._file = h5py.File(path)
        self._obs = self._file["obs"]
        self.columns = [str(name) for name in self._obs.attrs["column-order"]]
        self._whole: dict[str, Any] = {}

    def __enter__(self) -> "ObsReader":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return int(self._file["X"].attrs["shape"][0])

    def read_ids(self, start: int, stop: int) -> list[str]:
        """Ids of cells `start` … `stop - 1`."""
        ids: list[str] = self.read(str(self._obs.attrs["_index"]), start, stop).tolist()
        return ids

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """A column of these cells, as pandas gives it: what is missing is NaN or None."""
        column = self._obs[name]
        kind = column.attrs.get("encoding-type")
        if kind == "array":
            return np.asarray(column[start:stop])
        if kind == "string-array":
            return np.asarray(column.asstr()[start:stop])
        if kind == "categorical":  # ours
            codes = column["codes"][start:stop]
            words = self._read_whole(f"{name}/categories")
            return np.asarray(pd.Categorical.from_codes(codes, pd.Index(words)))
        if kind is not None and kind.startswith("nullable-") and "mask" in column:
            values = column["values"]
            is_text = h5py.check_string_dtype(values.dtype) is not None
            found = (values.asstr() if is_text else values)[start:stop].astype(object)
            found[column["mask"][start:stop]] = None
            return np.asarray(found)
        return np.asarray(self._read_whole(name))[start:stop]

    def read_words(self, name: str) -> list[str] | None:
        """A categorical's words that a cell has, in its order; None for other columns."""
        column = self._obs[name]
        if column.attrs.get("encoding-type") != "categorical":
            return None
        words = self._read_whole(f"{name}/categories")
        used = np.unique(column["codes"][:])
        return [str(words[code]) for code in used.tolist() if code >= 0]

    def _read_whole(self, path: str) -> Any:
        """What cannot be read in parts, or is short; kept."""
        from anndata.io import read_elem

        if path not in self._whole:
            self._whole[path] = read_elem(self._obs[path])
        return self._whole[path]


def check_ids(archives: Mapping[str, Path]) -> None:
    """Raise ValueError if cells of two experiments have the same id.

    An id is the experiment's, an underscore and the cell's own name: only where an experiment's id
    goes on as another's, `a` and `a_b`, can two be the same.
    """
    names = sorted(archives)
    for place, name in enumerate(names):
        others: list[str] = []
        for other in names[place + 1 :]:
            if not other.startswith(name):
                break
            if other.startswith(f"{name}_"):
                others.append(other)
        starts = tuple(f"{other}_" for other in others)
        own = (
            {i for i in _read_all_ids(archives[name]) if i.startswith(starts)} if others else set()
        )
        for other in others if own else ():
            if shared := sorted(own.intersection(_read_all_ids(archives[other]))):
                raise ValueError(
                    f"the experiments {name!r} and {other!r} both have a cell {shared[0]!r}: "
                    "rename a file or its cells"
                )


def _read_all_ids(path: Path) -> list[str]:
    with ObsReader(path) as obs:
        return obs.read_ids(0, len(obs))


Chunk = tuple[ObsReader, Mapping[str, Any], NDArray[np.integer[Any]]]
"""An open archive, what its cells have for a label that it lacks, and some rows, ascending."""


def read_label(
    obs: ObsReader, of_all: Mapping[str, Any], name: str, rows: NDArray[np.integer[Any]]
) -> pa.Array:
    """A label of some cells, ascending rows: their own, or else what all of them have."""
    if name not in obs.columns:
        return pa.array([of_all.get(name)] * len(rows), from_pandas=True)
    first = int(rows[0])
    values = obs.read(name, first, int(rows[-1]) + 1)[rows - first]
    try:
        return pa.array(values, from_pandas=True)
    except pa.ArrowException as error:
        raise ValueError(
            f"the column {name!r} cannot be a label or divide the cells: values of the type "
            f"{values.dtype} ({error})"
        ) from error


class LabelSurvey:
    """What is found out about labels before their table is written.

    Numbers stay numbers if all experiments have them; else a label is texts, whose words have codes
    in the order of `word_order`.

    Parameters
    ----------
    names
        The labels.
    fixed
        Of some, all their words in the order of their codes.
    grows
        Whether a larger draw is possible, whose words follow these.

    Attributes
    ----------
    types
        Of each, its type in the table.
    words
        Of each that is texts, its words in the order of the codes.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        fixed: Mapping[str, Sequence[str]] | None = None,
        grows: bool = False,
    ) -> None:
        self._names, self._fixed, self._grows = list(names), dict(fixed or {}), grows
        self._found: dict[str, set[pa.DataType]] = {name: set() for name in names}
        self._texts: dict[str, dict[str, list[str]]] = {name: {} for name in names}
        self.types: dict[str, pa.DataType] = {}
        self.words: dict[str, list[str]] = {}
        self._word_arrays: dict[str, pa.Array] = {}

    @property
    def empty(self) -> list[str]:
        """Labels that no cell seen has a value for."""
        return [name for name, found in self._found.items() if not found]

    @property
    def mixed(self) -> list[str]:
        """Labels that are numbers in some cells and texts in others: those become words, too."""
        kinds = {name: set(map(_is_number, found)) for name, found in self._found.items()}
        return [name for name, found in kinds.items() if len(found) > 1]

    def look(self, experiment_id: str, chunk: Chunk) -> None:
        """Look at some cells of an experiment."""
        for name in self._names:
            values = read_label(*chunk[:2], name, chunk[2])
            if values.null_count < len(values):
                self._found[name].add(values.type)
                if not _is_number(values.type):
                    self._note(name, experiment_id, chunk, values)

    def look_again(self, experiment_id: str, chunk: Chunk) -> None:
        """Look at the words of mixed labels; for all cells, after all were looked at."""
        for name in self.mixed:
            values = read_label(*chunk[:2], name, chunk[2])
            if _is_number(values.type):
                self._note(name, experiment_id, chunk, values)

    def _note(self, name: str, experiment_id: str, chunk: Chunk, values: pa.Array) -> None:
        """Note an experiment's words: a categorical's all, and in its order."""
        noted = self._texts[name].get(experiment_id)
        if noted is None and name in chunk[0].columns:
            noted = chunk[0].read_words(name)
        known = noted or []
        if new := _list_words(values).difference(known):
            known = sort_naturally([*known, *new])
        self._texts[name][experiment_id] = known

    def finish(self) -> None:
        """Settle types and words.

        Raises
        ------
        ValueError
            If a label whose words are fixed has another one.
        """
        for name, found in self._found.items():
            if all(map(_is_number, found)) and name not in self._fixed:
                self.types[name] = next(iter(found)) if len(found) == 1 else pa.float64()
                continue
            lists = self._texts[name]
            if name in self._fixed:
                self._check_fixed(name)
                self.words[name] = list(self._fixed[name])
            elif self._grows:
                self.words[name] = append_words(list(lists.values()))
            else:
                self.words[name] = merge_words(lists)
            empty = pd.Categorical.from_codes([], pd.Index(self.words[name], dtype=object))
            codes = pa.from_numpy_dtype(empty.codes.dtype)
            self.types[name] = pa.dictionary(codes, pa.string())
            self._word_arrays[name] = pa.array(self.words[name], pa.string())

    def _check_fixed(self, name: str) -> None:
        known = set(self._fixed[name])
        for experiment_id, words in self._texts[name].items():
            if unknown := [word for word in words if word not in known]:
                raise ValueError(
                    f"labels fix the values of {name!r}, and experiment {experiment_id} has "
                    f"others: {unknown[:5]}; add them to labels.{name}, or leave it without a list"
                )

    def unify(self, name: str, values: pa.Array) -> pa.Array:
        """Some cells' values in the label's type."""
        kind = self.types[name]
        if name not in self.words:
            return values.cast(kind, safe=False)  # whole numbers beside others become float64
        codes = pc.index_in(values.cast(pa.string()), self._word_arrays[name])
        return pa.DictionaryArray.from_arrays(codes.cast(kind.index_type), self._word_arrays[name])


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _list_words(values: pa.Array) -> set[str]:
    return set(values.drop_null().cast(pa.string()).unique().to_pylist())
