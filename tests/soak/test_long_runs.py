"""A million batches and hundreds of epochs take no more memory and no more time as they go on."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import theilslopes

from support.isolated import Isolated
from support.tally import SHARE, describe, tally_of

pytestmark = pytest.mark.soak

MOST_BYTES = 8 << 20
"""That memory may grow by over a whole run."""

MOST_SLOWER = 0.2
"""Of the median time of a step: that it may grow by over a whole run."""

NAMES = {"read_batches": "a million batches", "read_epochs": "500 epochs, a loader each"}
"""Of the parts."""


@pytest.mark.parametrize(("job", "n"), [("read_batches", 1_000_000), ("read_epochs", 500)])
def test_memory_and_speed_stay_what_they_were(pbmc_dir: Path, job: str, n: int) -> None:
    n = max(200, round(SHARE * n))
    name = "n_batches" if job == "read_batches" else "n_epochs"
    with Isolated("support.long_jobs") as isolated, tally_of(NAMES[job]) as tally:
        arguments = [{"data_dir": str(pbmc_dir), name: n}]
        (outcome,) = isolated.run(f"support.long_jobs:{job}", arguments, limit=7200)
        assert outcome.how == "returned", describe(outcome)
        memory, seconds = np.array(outcome.value).T[:, len(outcome.value) // 10 :]  # warm by then
        # Theil and Sen's: other processes of this machine make single steps slow.
        grown = float(theilslopes(memory).slope) * len(memory)
        slower = float(theilslopes(seconds).slope) * len(seconds) / float(np.median(seconds))
        tally.note = f"{n:,}: {grown / 1e6:+.2f} MB, {100 * slower:+.1f} % of a step's time"
        is_flat = grown < MOST_BYTES and slower < MOST_SLOWER
        tally.add("right" if is_flat else "wrong", tally.note)
