"""A data directory's paths are those that the documentation lists."""

from pathlib import Path

from scdiff_data.store.layout import DataDirectory

ROOT = Path(__file__).parents[2]


def test_docs_list_what_lies_where() -> None:
    directory = DataDirectory(Path())
    experiment = "{experiment_id}"
    shipped = {
        *(directory.manifest, directory.hvg_info, directory.hvg_figure),
        *(directory.catalog, directory.genes, directory.cells, directory.experiments),
        *(directory.archive(experiment), directory.record(experiment)),
        *(directory.statistics(experiment), directory.shard(0)),
    }
    listing = (ROOT / "docs" / "format.md").read_text().split("## The files\n\n")[1]
    listed = [line.split()[0] for line in listing.split("\n\n")[0].splitlines()]
    assert sorted(listed) == sorted(path.as_posix() for path in shipped)


def test_a_prepared_directory_holds_nothing_else(pbmc_dir: Path) -> None:
    directory = DataDirectory(pbmc_dir)
    ids = [path.stem for path in directory.archives.glob("*.h5ad")]
    known = {
        *(directory.manifest, directory.hvg_info, directory.hvg_figure, directory.lock),
        *(directory.catalog, directory.genes, directory.cells, directory.experiments),
        *(place(i) for i in ids for place in (directory.archive, directory.record)),
        *(directory.statistics(i) for i in ids),
        *(directory.shard(number) for number in range(3)),
    }
    found = {p for p in pbmc_dir.rglob("*") if p.is_file() and directory.source not in p.parents}
    assert found - set(directory.fits.glob("*")) == known
