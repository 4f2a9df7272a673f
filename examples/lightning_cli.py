"""Every setting from YAML: `python examples/lightning_cli.py fit -c examples/lightning_cli.yaml`.

The model is that of `classifier.py`; its sizes are linked to the data's. Any setting can be given
in the command, too: `--data.data_dir DATA_DIR`, `--model.n_hidden 32`; `--print_config` at its end
shows them all. Needs `pip install 'jsonargparse[signatures]'`.
"""

from classifier import CellTypes
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from scdiff_data import ScRNADataModule


class CLI(LightningCLI):
    """A command whose model learns from the data how large it is."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the model asks to what the data know."""
        parser.link_arguments("data", "model.n_genes", count_genes, apply_on="instantiate")
        parser.link_arguments("data", "model.cell_types", list_types, apply_on="instantiate")

    def after_fit(self) -> None:
        """Score the test cells."""
        scores = self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
        print(f"test accuracy {scores[0]['accuracy']:.3f} of {self.datamodule!r}")


def count_genes(cells: ScRNADataModule) -> int:
    """Genes of a batch; the cells are prepared for it, if they are not yet."""
    cells.prepare_data()
    return cells.n_genes


def list_types(cells: ScRNADataModule) -> list[str]:
    """Types that the cells have."""
    cells.prepare_data()
    return cells.categories["cell_type"]


if __name__ == "__main__":
    CLI(CellTypes, ScRNADataModule, save_config_kwargs={"overwrite": True})
