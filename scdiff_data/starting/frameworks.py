"""Torch and Lightning, which take seconds to load, and say more than a user needs."""

import logging
import warnings

from scdiff_data.telling import Progress, has_screen, is_first_rank, tell

_TALKING = ("lightning", "lightning.pytorch", "lightning.fabric")
"""Loggers that Lightning sets up by itself when it is loaded."""


def load_frameworks() -> None:
    """Load Torch and Lightning; their loggers stay as `configs/hydra/default.yaml` has them.

    Of several ranks the first one speaks.
    """
    if not has_screen():  # where the bar is a line, it comes late
        tell("loading Torch and Lightning")
    levels = [logging.getLogger(name).level for name in _TALKING]
    with Progress("load"):
        import lightning.pytorch  # noqa: F401
    for name, level in zip(_TALKING, levels, strict=True):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).setLevel(level)
    if not is_first_rank():
        for handler in logging.root.handlers:
            handler.setLevel(logging.ERROR)  # what all ranks would say, the first one does
    logging.captureWarnings(capture=True)  # so that they stand above the bars, and in train.log
    # Lightning 2.6 calls a torch.utils._pytree function that torch 2.13 renames.
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
