"""Eight readers beside a writer that keeps replacing what they read."""

from pathlib import Path

import pytest

from support.isolated import Isolated
from support.tally import SHARE, describe, tally_of

pytestmark = pytest.mark.soak

N_READERS = 8
"""Processes that read at the same time."""

SECONDS = 1200.0
"""That they read beside the writer."""


def test_a_reader_gets_its_own_cells_or_is_told(tmp_path: Path) -> None:
    job, seconds = "support.company:read_beside_a_writer", max(20.0, SHARE * SECONDS)
    arguments = {"folder": str(tmp_path), "n_readers": N_READERS, "seconds": seconds}
    with Isolated("support.company") as isolated, tally_of("readers beside a writer") as tally:
        (outcome,) = isolated.run(job, [arguments], limit=2 * seconds + 600)
        assert outcome.how == "returned", describe(outcome)
        *readers, writer = outcome.value
        for found in readers:
            for kind in ("right", "clear"):
                tally.counts[kind] += found[kind]
        for found in outcome.value:
            for fault in found.get("faults", []):
                tally.add(fault.split(":")[0], fault)
            if found["code"]:
                tally.add("crashed", f"exit {found['code']}")
        tally.note = f"{writer['right']} replacements"
        assert writer["right"] > 1
        assert all(found["right"] for found in readers)
