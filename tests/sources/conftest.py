"""What the tests of this folder share."""

import pytest


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare without the picture of genes: of so few cells it takes longer than all the rest."""
    monkeypatch.setattr("scdiff_data.pipeline.assemble.plot_hvgs", lambda path, *_: path.touch())
