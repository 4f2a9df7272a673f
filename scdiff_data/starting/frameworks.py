"""Torch and Lightning, which take seconds to load, and say more than a user needs."""

import gc
import logging
import warnings

from scdiff_data.telling import Progress, has_screen, is_first_rank, tell

_TALKING = ("lightning", "lightning.pytorch", "lightning.fabric")
"""Loggers that Lightning sets up by itself when it is loaded."""

_NO_NEWS = (
    r".*isinstance\(treespec, LeafSpec\)",  # what torch 2.13 renames, and Lightning 2.6 calls
    r".*does not have many workers",  # our loaders are fastest without
    r"The number of training batches .* is smaller than the logging interval",
    r"Checkpoint directory .* exists and is not empty",  # of a job that is started again
    r"The dirpath has changed from",  # of a run that goes on in a folder of its own
    r"The `srun` command is available on your system",  # a cluster's, where a job was not asked for
    r"When using the `ThroughputMonitor`, you need to define",  # of a run with no step to train
)
"""Warnings of Lightning's that a user can do nothing about, or need not."""


def load_frameworks() -> None:
    """Load Torch and Lightning; their loggers stay as `configs/hydra/default.yaml` has them.

    Of several ranks the first one speaks.
    """
    if not has_screen():  # where the bar is a line, it comes late
        tell("loading Torch and Lightning")
    levels = [logging.getLogger(name).level for name in _TALKING]
    gc.disable()  # millions of objects that stay: looking through them takes a third of the time
    with Progress("load"):
        import anndata  # noqa: F401
        import lightning.pytorch  # noqa: F401
    gc.freeze()  # nor are they looked through at the end, which took as long again
    gc.enable()
    for name, level in zip(_TALKING, levels, strict=True):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(level)
    if not is_first_rank():
        for handler in logging.root.handlers:
            handler.setLevel(logging.ERROR)  # what all ranks would say, the first one does
    logging.captureWarnings(capture=True)  # so that they stand above the bars, and in train.log
    for message in _NO_NEWS:
        warnings.filterwarnings("ignore", message)
