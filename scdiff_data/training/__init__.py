"""What Lightning takes: the DataModule, exact resuming, an optimizer.

Read `plain_values`, `prepared`, `token_batches`, `serving`, `mending`, `resume`, `predictions`,
`datamodule`; `optimizer` stands alone.
"""

from scdiff_data.training.datamodule import ScRNADataModule
from scdiff_data.training.optimizer import make_optimizer
from scdiff_data.training.serving import Serving

__all__ = ["ScRNADataModule", "Serving", "make_optimizer"]
