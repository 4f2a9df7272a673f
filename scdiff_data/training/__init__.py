"""What Lightning takes: the DataModule, exact resuming, an optimizer.

Read `prepared`, `fit_data`, `resume`, `token_batches`, `datamodule`; `optimizer` stands alone.
"""

from scdiff_data.training.datamodule import ScRNADataModule
from scdiff_data.training.optimizer import make_optimizer

__all__ = ["ScRNADataModule", "make_optimizer"]
