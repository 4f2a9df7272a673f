"""A mapped dataset is what the file held."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from scdiff_data import ManifestError
from scdiff_data.base.hdf5_map import map_dataset


def test_a_mapped_dataset_outlives_its_file_and_is_read_only(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.int16).reshape(50, 20)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["values"], file["none"] = values, np.empty((0, 3))
        file.create_dataset("chunked", data=values, chunks=True)
    with h5py.File(tmp_path / "x.h5") as file:
        mapped, empty = map_dataset(file["values"]), map_dataset(file["none"])
        with pytest.raises(ManifestError, match="chunked is not contiguous"):
            map_dataset(file["chunked"])
    (tmp_path / "x.h5").unlink()
    assert np.array_equal(mapped, values)
    assert empty.shape == (0, 3)
    assert not mapped.flags.writeable
