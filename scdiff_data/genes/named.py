"""Genes that the user names, another data set's perhaps, in place of those that would be chosen."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.reading import GeneAxis, strip_versions


@dataclass(frozen=True)
class NamedGenes:
    """Gene ids or symbols, in the order of the columns.

    Parameters
    ----------
    names
        Ids or symbols as given.
    symbols
        Of another data set's `hvg_info.json`, the symbols beside its ids; None for a plain list.
    """

    names: tuple[str, ...]
    symbols: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("genes names no gene: give a list, a file of ids, or null")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"genes names {twice!r} twice: a column holds a gene of its own")

    @classmethod
    def read(
        cls, genes: "str | Path | Sequence[str] | Mapping[str, Sequence[str]] | NamedGenes"
    ) -> "NamedGenes":
        """Take a list of names, a file of one name a line, or an `hvg_info.json` or what it says.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it names no genes, or one twice.
        """
        if isinstance(genes, NamedGenes):
            return genes
        if isinstance(genes, Mapping):
            return cls._take(genes, "genes")
        if not isinstance(genes, str | Path):
            return cls(tuple(map(str, genes)))
        path = Path(genes)
        if not path.is_file():
            raise FileNotFoundError(
                f"genes={genes}: no such file; give an hvg_info.json, a file of one gene a line, "
                "or a list"
            )
        try:
            text = path.read_text("utf-8-sig")  # some editors begin a file with a mark
        except UnicodeDecodeError as error:
            raise ValueError(f"genes={genes} is no text: give a file of one gene a line") from error
        if path.suffix != ".json":
            lines = (line.split("#")[0].strip() for line in text.splitlines())
            return cls(tuple(line for line in lines if line))
        return cls._take(text, f"genes={genes}")

    @classmethod
    def _take(cls, info: str | Mapping[str, Any], name: str) -> "NamedGenes":
        """What an `hvg_info.json` says, as its text or as it was read."""
        try:
            said = json.loads(info) if isinstance(info, str) else info
            lists = [said[name] for name in ("hvg_names", "hvg_symbols")]
            are_texts = [
                isinstance(found, list | tuple) and set(map(type, found)) <= {str}
                for found in lists
            ]
            if not all(are_texts) or len(lists[0]) != len(lists[1]):
                raise ValueError("hvg_names and hvg_symbols are no two lists of as many texts")
            return cls(*map(tuple, lists))
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{name} is no hvg_info.json ({type(error).__name__}: {error}): it needs "
                "'hvg_names' and 'hvg_symbols'"
            ) from error

    def settings(self) -> list[str] | dict[str, list[str]]:
        """Plain JSON values."""
        if self.symbols is None:
            return list(self.names)
        return {"hvg_names": list(self.names), "hvg_symbols": list(self.symbols)}

    def find(self, axis: GeneAxis) -> NDArray[np.int64]:
        """Each gene's place on the axis: by id, else by symbol; -1 if the data lack it.

        Raises
        ------
        ValueError
            If a symbol stands for several genes, two names for one gene, or no gene is found.
        """
        place_of = {gene: place for place, gene in enumerate(axis.ids)}
        places_of_symbol = defaultdict(list)
        for place, symbol in enumerate(axis.symbols):
            places_of_symbol[symbol].append(place)
        found = []
        for name, symbol in zip(
            strip_versions(self.names), self.symbols or self.names, strict=True
        ):
            # Data may be named by symbols alone, and the list by ids and symbols: both are tried.
            known = [place_of[text] for text in (name, symbol) if text in place_of]
            known = known[:1] or places_of_symbol.get(name) or places_of_symbol.get(symbol) or [-1]
            if len(known) > 1:
                raise ValueError(
                    f"genes names {symbol!r}, a symbol of {len(known)} genes: name one of "
                    f"{[axis.ids[place] for place in known]}"
                )
            found.append(known[0])
        places = np.array(found, np.int64)
        present = places[places >= 0]
        if not len(present):
            raise ValueError(
                f"genes names {len(places)} genes, such as {self.names[0]!r}, and the data have "
                f"none of them; theirs are such as {axis.ids[0]!r} ({axis.symbols[0]!r})"
            )
        if len(np.unique(present)) < len(present):
            place = int(present[np.flatnonzero(np.bincount(present)[present] > 1)[0]])
            twice = [n for n, p in zip(self.names, found, strict=True) if p == place]
            raise ValueError(f"genes names {axis.ids[place]} more than once, as {twice}")
        return places
