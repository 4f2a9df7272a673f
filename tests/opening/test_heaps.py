"""Damage in the heap of a file's texts, over which the library would run for ever, is an error."""

import io
import struct
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scdiff_data import CountError
from scdiff_data.base import identify_file
from scdiff_data.opening import heaps, open_hdf5
from scdiff_data.reading import H5adFile

TEXTS = st.lists(
    st.one_of(st.text(max_size=40), st.integers(0, 9_000).map(lambda n: "GCOL" * n)), max_size=60
)


def find_objects(content: bytes) -> list[int]:
    """Where the objects of all collections begin, the free ones among them."""
    found, at = [], content.find(b"GCOL\x01\0\0\0")
    while at >= 0:
        end = at + struct.unpack_from("<Q", content, at + 8)[0]
        at += 16
        while at + 16 <= end:
            found.append(at)
            number, _, n_bytes = struct.unpack_from("<HH4xQ", content, at)
            at += n_bytes if number == 0 else 16 + -(-n_bytes // 8) * 8
        at = content.find(b"GCOL\x01\0\0\0", end)
    return found


def check(path: Path) -> None:
    heaps.check_heaps(path, identify_file(path))


@given(texts=TEXTS, part=st.integers(16, 20_000), data=st.data())
def test_an_object_without_length_is_found_wherever_it_lies(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], part: int, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("heap") / "file.h5"
    with h5py.File(path, "w") as file:
        file.attrs["said"] = "a text of any length"
        written = [text.replace("\0", "") for text in texts]
        file.create_dataset("texts", data=written, dtype=h5py.string_dtype())
        file["numbers"] = np.frombuffer(b"GCOL" * 50, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heaps, "_BYTES_AT_ONCE", part)
        check(path)
        whole = path.read_bytes()
        places = find_objects(whole)
        assert places
        unused = data.draw(st.binary(min_size=3, max_size=3))  # of which the library says nothing
        changed = bytearray(whole.replace(b"GCOL\x01\0\0\0", b"GCOL\x01" + unused))
        at = data.draw(st.sampled_from(places))
        number = data.draw(st.sampled_from([0, 1]))
        # Of no bytes in all, or of so many that the sum comes out as none or less.
        n_bytes = 0 if number == 0 else 2**64 - data.draw(st.integers(16, 23))
        changed[at : at + 16] = struct.pack("<HH4xQ", number, 0, n_bytes)
        path.unlink()
        path.write_bytes(changed)
        with pytest.raises(CountError, match=rf"texts is damaged at byte {at};.*h5repack"):
            check(path)


def test_a_file_is_looked_through_before_the_library_reads_a_text(tmp_path: Path) -> None:
    path = tmp_path / "cells.h5ad"
    ad.AnnData(np.ones((3, 2), np.float32)).write_h5ad(path)
    changed = bytearray(path.read_bytes())
    at = find_objects(changed)[0]
    changed[at : at + 200] = bytes(200)
    path.write_bytes(changed)
    with pytest.raises(CountError, match=f"^cells.h5ad cannot be read: .* at byte {at}"):
        H5adFile(path)
    with (
        path.open("rb") as stream,
        pytest.raises(CountError, match=rf"^cells.h5ad .*heap of its texts.* at byte {at}"),
        H5adFile(path, stream=stream) as file,
    ):
        list(file.obs.index)


@pytest.mark.parametrize("place", [2**64 - 2**20, 2**63 - 1, 2**40])
def test_a_place_that_no_file_has_is_an_error_of_the_file(tmp_path: Path, place: int) -> None:
    path = tmp_path / "cells.h5ad"
    ad.AnnData(np.ones((3, 2), np.float32)).write_h5ad(path)
    content = path.read_bytes()
    content = content[:24] + struct.pack("<Q", place) + content[32:]  # where all others count from
    with pytest.raises(CountError, match=r"^cells\.h5ad "):
        H5adFile(path, stream=io.BytesIO(content))
    stream = heaps.WatchedStream(io.BytesIO(content), path.name)
    with pytest.raises(CountError, match=rf"^cells\.h5ad cannot be read: .* byte {place}, "):
        stream.seek(place)


def test_a_file_that_is_no_hdf5_or_empty_is_said_to_be_none(tmp_path: Path) -> None:
    for content in (b"", b"GCOL", b"GCOL\x01\0\0\0" * 2):
        path = tmp_path / "cells.h5ad"
        path.write_bytes(content)
        with pytest.raises(CountError, match="is not a readable h5ad file"):
            open_hdf5(path)
        check(path)
