"""Which cells, in which order, and for which split: keyed hashes decide.

A keyed hash of an id does not move when the catalog or `cell_count` grows, so a larger draw is a
superset of a smaller one and a validation experiment stays one for ever.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.base import keyed_hash
from scdiff_data.constants import SPLITS

logger = logging.getLogger(__name__)


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
            to_key(value): SPLITS.index(split)
            for split in ("val", "test")
            for value in self.named_values(split)
        }
        return np.array([codes.get(to_key(value), 0) for value in values], dtype=np.int8)


def to_key(value: Any) -> str:
    """What values are compared by: texts without case, and numbers as such, so 3 is 3.0."""
    text = str(value).strip().lower()
    try:
        return str(float(text))
    except ValueError:
        return text


def check_values(rule: Split, values: Iterable[Any]) -> None:
    """Say which of the split's named values are not among the cells': they may be misspelt."""
    known = {to_key(value) for value in values}
    for name in ("val", "test"):
        missing = [v for v in rule.named_values(name) if to_key(v) not in known]
        if missing:
            logger.warning(
                "split.%s names %s, which no cell has as %s; they have %s",
                name,
                missing,
                rule.by,
                sorted(known)[:20],
            )


def check_sizes(rule: Split, sizes: list[int]) -> None:
    """Raise ValueError if a split that should have cells has none."""
    for name, size in zip(SPLITS, sizes, strict=True):
        if size == 0 and (name == "train" or getattr(rule, name)):
            raise ValueError(
                f"the {name} split is empty: split={rule.settings()} gives "
                f"{dict(zip(SPLITS, sizes, strict=True))} cells; use split.by=cell, which divides "
                "single cells, change the fractions or values, or draw more cells"
            )
