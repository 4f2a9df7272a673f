"""The genes of all files, before any cell is read."""

from pathlib import Path

import pytest
import scipy.sparse as sp

from scdiff_data.errors import CountError
from scdiff_data.sources import Bucket, CatalogRow, FileLayout, survey_genes
from support.h5ad import counts_of, write_source


def test_a_file_that_is_gone_is_passed_over_as_one_that_cannot_be_read(tmp_path: Path) -> None:
    write_source(tmp_path / "here.h5ad", sp.csr_matrix(counts_of()))
    rows = {name: CatalogRow(name, f"{name}.h5ad", 3, None, None, {}) for name in ("gone", "here")}
    bucket, how = Bucket(str(tmp_path)), {"take_all": True, "max_memory": 1 << 26}
    assert len(survey_genes(bucket, rows, FileLayout(), **how)) == counts_of().shape[1]
    with pytest.raises(CountError, match=r"none of 1 files can be read: .*gone\.h5ad"):
        survey_genes(bucket, {"gone": rows["gone"]}, FileLayout(), **how)
