"""Which cells, in which order, and for which split: keyed hashes decide.

A keyed hash of an id does not move when the catalog or `cell_count` grows, so a larger draw is a
superset of a smaller one and a validation experiment stays one for ever.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")


def keyed_hash(ids: Iterable[str], *, seed: int, purpose: str) -> NDArray[np.uint64]:
    """64-bit BLAKE2b of every id, keyed by seed and purpose.

    The purpose keeps decisions independent: the order of the draw says nothing about the split.
    """
    key = f"{purpose}:{seed}".encode()
    hasher = hashlib.blake2b
    digests = b"".join(hasher(i.encode(), digest_size=8, key=key).digest() for i in ids)
    return np.frombuffer(digests, dtype=">u8").astype(np.uint64)


def order_experiments(experiment_ids: Sequence[str], *, seed: int) -> list[str]:
    """The experiments in the order of the draw."""
    hashes = keyed_hash(experiment_ids, seed=seed, purpose="draw")
    return [i for _, i in sorted(zip(hashes.tolist(), experiment_ids, strict=True))]


def draw_cells(cell_ids: Sequence[str], n_cells: int, *, seed: int) -> NDArray[np.int64]:
    """Rows, ascending, of the `n_cells` cells of lowest keyed hash (all, if there are fewer)."""
    if n_cells >= len(cell_ids):
        return np.arange(len(cell_ids))
    hashes = keyed_hash(cell_ids, seed=seed, purpose="cells")
    return np.sort(np.argsort(hashes, kind="stable")[:n_cells])


@dataclass(frozen=True)
class Split:
    """How cells are divided into training, validation and test.

    Parameters
    ----------
    by
        `experiment`: whole experiments, by keyed hash, so that fractions hold in expectation;
        `cell`: single cells, by keyed hash; or a column of the catalog or label of the cells, whose
        named values go to `val` and `test`, and all others to training.
    val, test
        Fractions in [0, 1) for the first two; lists of values for a column.

    Raises
    ------
    ValueError
        If fractions are not fractions, leave nothing to train on, or a column has no values named.
    """

    by: str = "experiment"
    val: float | Sequence[str] = 0.1
    test: float | Sequence[str] = 0.1

    def __post_init__(self) -> None:
        if self.by_hash:
            val, test = self.val, self.test
            if isinstance(val, Sequence) or isinstance(test, Sequence):
                raise ValueError(
                    f"split.by={self.by} takes fractions, got val={self.val!r}, "
                    f"test={self.test!r}; lists of values need split.by=<column>"
                )
            if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
                raise ValueError(
                    f"split.val and split.test are fractions that sum to less than 1, got {val} "
                    f"and {test}"
                )
        elif set(self.named_values("val")) & set(self.named_values("test")):
            raise ValueError(
                f"split.val and split.test both name a value of {self.by}: {self.val} and "
                f"{self.test}"
            )

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any]) -> "Split":
        """Build from `{by: …, val: …, test: …}`; for a column, what is not named is empty."""
        unknown = set(settings) - {"by", "val", "test"}
        if unknown:
            raise ValueError(f"split has no setting {sorted(unknown)}; it has by, val, test")
        if settings.get("by", "experiment") in ("experiment", "cell"):
            return cls(**settings)
        return cls(**({"val": (), "test": ()} | dict(settings)))

    @property
    def by_hash(self) -> bool:
        """Whether a keyed hash decides, and not a column's values."""
        return self.by in ("experiment", "cell")

    def named_values(self, split: str) -> list[str]:
        """The column's values that go to `split` (`val` or `test`)."""
        values = getattr(self, split)
        if isinstance(values, float | int):
            raise ValueError(f"split.{split} lists values of the column {self.by!r}, got {values}")
        return [values] if isinstance(values, str) else [str(v) for v in values]

    def settings(self) -> dict[str, Any]:
        """Plain JSON values, for the manifest."""
        if self.by_hash:
            return {"by": self.by, "val": self.val, "test": self.test}
        return {"by": self.by, "val": self.named_values("val"), "test": self.named_values("test")}

    def assign_by_hash(self, ids: Sequence[str], *, seed: int) -> NDArray[np.int8]:
        """Split of every id (0 train, 1 val, 2 test), for ever the same for the same seed."""
        unit = keyed_hash(ids, seed=seed, purpose="split") / 2.0**64
        val, test = float(self.val), float(self.test)  # type: ignore[arg-type]
        return np.select([unit < val, unit < val + test], [1, 2], 0).astype(np.int8)

    def assign_by_value(self, values: Sequence[Any]) -> NDArray[np.int8]:
        """Split of every value (0 train, 1 val, 2 test); texts are compared without case."""
        codes = {
            value.strip().lower(): SPLITS.index(split)
            for split in ("val", "test")
            for value in self.named_values(split)
        }
        return np.array([codes.get(str(v).strip().lower(), 0) for v in values], dtype=np.int8)
