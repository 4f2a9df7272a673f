"""Texts that many files share are compared where they lie, and only the same are found so."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scdiff_data import CountError
from scdiff_data.opening import KnownTexts, SourceDataset, open_hdf5

LETTERS = st.characters(exclude_characters="\0", codec="utf-8")
TEXTS = st.lists(st.text(LETTERS, max_size=30), min_size=1)
LAYOUTS = st.sampled_from(
    [{}, {"chunks": (4,)}, {"chunks": (7,), "compression": "gzip"}, {"chunks": (1000,)}]
)


def write(path: Path, texts: list[str], order: list[int], layout: dict[str, Any]) -> None:
    """Texts whose heaps have them in another order, between texts of others."""
    with h5py.File(path, "w") as file:
        kind, maxshape = h5py.string_dtype(), (None,) if layout else (len(texts),)
        column = file.create_dataset(
            "column", (len(texts),), maxshape=maxshape, dtype=kind, **layout
        )
        for number, place in enumerate(order):
            column[place] = texts[place]
            file.create_dataset(f"other{number}", data=["x" * 500 * (number % 3)], dtype=kind)


def refuse(self: SourceDataset, args: Any, new_dtype: Any = None) -> Any:
    raise AssertionError("texts were read one by one")


@given(texts=TEXTS, layout=LAYOUTS, data=st.data())
def test_known_texts_are_found_unread_wherever_they_lie(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    layout: dict[str, Any],
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("texts") / "file.h5"
    write(path, texts, data.draw(st.permutations(range(len(texts)))), layout)
    with open_hdf5(path) as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr(SourceDataset, "__getitem__", refuse)
        assert KnownTexts(texts).are_in(file["column"])


@given(texts=TEXTS, layout=LAYOUTS, data=st.data())
def test_other_texts_are_not_taken_for_the_known_ones(
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str],
    layout: dict[str, Any],
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("texts") / "file.h5"
    write(path, texts, list(range(len(texts))), layout)
    place = data.draw(st.integers(0, len(texts) - 1))
    other = data.draw(st.text(LETTERS, max_size=30).filter(lambda text: text != texts[place]))
    others = [*texts[:place], other, *texts[place + 1 :]]
    with open_hdf5(path) as file:
        assert not KnownTexts(others).are_in(file["column"])
        assert not KnownTexts([*texts, "more"]).are_in(file["column"])


@example(at=8, byte=1, is_packed=False)
@given(at=st.integers(0, 4095), byte=st.integers(0, 255), is_packed=st.booleans())
def test_damaged_heaps_end_the_look_and_other_bytes_are_never_known(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, is_packed: bool
) -> None:
    path = tmp_path_factory.mktemp("texts") / "file.h5"
    texts = [f"ENSG{i:05d}" for i in range(40)]
    layout = {"chunks": (16,), "compression": "gzip"} if is_packed else {}
    write(path, texts, list(range(40)), layout)
    content = bytearray(path.read_bytes())
    content[content.find(b"GCOL") + at] = byte
    path.write_bytes(content)
    try:
        file = open_hdf5(path)
    except CountError:  # it leads round and round
        return
    with file:
        is_known = KnownTexts(texts)._are_here(file["column"])
        expected = [text.encode() for text in texts]
        try:
            found = file["column"][:].tolist()
        except Exception:  # noqa: BLE001 - a heap's length, say: what was compared still lies there
            found = [text for text in expected if text in content]
        assert is_known <= (found == expected)


def test_texts_of_fixed_length_are_compared_too(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    with h5py.File(path, "w") as file:
        file["column"] = np.array([b"ab", b"c"])
    with open_hdf5(path) as file:
        assert KnownTexts(["ab", "c"]).are_in(file["column"])
        assert not KnownTexts(["ab", "d"]).are_in(file["column"])
