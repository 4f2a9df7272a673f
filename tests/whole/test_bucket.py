"""A bucket, named on the command line, becomes batches."""

from pathlib import Path

from hydra.utils import instantiate

from scdiff_data import HVGDataset, ScRNADataset
from support.cases import ATLAS_SETTINGS, GcsServer
from support.configs import compose
from support.reading import source_counts


def test_every_count_of_a_gs_bucket_arrives_in_the_datasets(
    tmp_path: Path, gcs: GcsServer, atlas_bucket: Path
) -> None:
    gcs.put_folder("every-count-again", atlas_bucket)
    config = compose(
        tmp_path / "run",
        "data=scbasecount",
        "data.source.url=gs://every-count-again",
        f"data.source.storage_options.endpoint_url={gcs.url}",
        f"data.data_dir={tmp_path}",
        "data.cell_count=null",
        "data.labels=[cell_type]",
        *(f"data.{name}={ATLAS_SETTINGS[name]}" for name in ("min_genes", "n_hvgs", "shard_size")),
        "data.split.by=cell",
    )
    datamodule = instantiate(config.data)
    datamodule.prepare_data()
    expected = source_counts(atlas_bucket)
    whole, chosen = ScRNADataset(tmp_path), HVGDataset(tmp_path)
    for dataset in (whole, chosen):
        expression, metadata = dataset[:]
        for cell, counts in zip(metadata["cell_id"], expression.numpy(), strict=True):
            wanted = [min(expected[cell][gene], 32_767) for gene in dataset.gene_ids]
            assert counts.tolist() == wanted
    totals = whole[:].metadata["total_counts"].tolist()
    assert totals == [sum(expected[cell].values()) for cell in whole[:].metadata["cell_id"]]
    passing = {cell for cell, counts in expected.items() if sum(counts.values()) >= 500}
    assert set(whole[:].metadata["cell_id"]) == passing
