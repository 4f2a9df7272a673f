"""What a tokenizer is fitted on: the training cells of a prepared directory."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scdiff_data.loading import HVGDataset
from scdiff_data.store import Manifest
from scdiff_data.tokenizers import FitData


def open_fit_data(manifest: Manifest) -> FitData:
    """The directory's training cells, as tokenizers take them; nothing is read yet."""

    def read_training_counts(n: int) -> tuple[NDArray[np.int16], NDArray[np.integer[Any]]]:
        cells = HVGDataset(manifest.data_dir, split="train", labels=[])[:n]
        return cells.expression.numpy(), cells.metadata["total_counts"].numpy()

    return FitData(
        manifest.data_dir,
        manifest.directory.fits,
        digest=manifest.shards_key,
        genes_digest=manifest.genes.chosen_digest,
        read_training_counts=read_training_counts,
    )
