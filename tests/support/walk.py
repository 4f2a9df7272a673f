"""Follow one cell through the code: `python tests/support/walk.py` prints where it comes along.

A cell of `Pbmc` is downloaded, archived, chosen for, sharded, gathered, tokenized and trained on.
A room is done with it when its outermost call returns, and so is a file: that order is compared
with the order in which the package lists rooms, and rooms list files. `base`, which serves all, and
`store/layout.py`, which only names paths, are left out.
"""

import logging
import re
import sys
import tempfile
import threading
from itertools import combinations
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.demos.boring_classes import BoringModel

import scdiff_data
from scdiff_data import LogBinTokens, Pbmc, Recipe, ScRNADataModule, prepare

PACKAGE = Path(scdiff_data.__file__).parent
SETTINGS: dict[str, Any] = {
    "n_hvgs": 64,
    "min_genes": None,
    "min_counts": None,
    "split": {"by": "cell"},
}


class Model(BoringModel):
    """Looks at a batch's tokens and at one id."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        del batch_idx
        x, metadata = batch
        assert metadata["cell_id"][0]
        return self.layer(x.float()[:, :32]).pow(2).mean()


class Walk:
    """Notes when rooms and files are done with a cell."""

    def __init__(self) -> None:
        self.rooms: list[str] = []
        self.files: list[str] = []
        self._depth: dict[tuple[int, str], int] = {}
        self._elsewhere: set[str] = set()
        self._main = threading.get_ident()
        self._has_begun = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        is_own = code.co_filename.startswith(str(PACKAGE)) and code.co_name != "<module>"
        if event not in ("call", "return") or not is_own:
            return
        file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
        room = file.split("/")[0]
        if "/" not in file or room == "base" or file in ("store/layout.py",):
            return
        # In the main thread, the cell comes in when its downloaded file is taken up.
        self._has_begun |= file == "reading/h5ad.py"
        thread = threading.get_ident()
        for name, done in ((room, self.rooms), (file, self.files)):
            key = thread, name
            self._depth[key] = self._depth.get(key, 0) + (1 if event == "call" else -1)
            # What other threads do, they do for who waits for them in the main one.
            is_left_here = event == "return" and self._depth[key] <= 0
            left = is_left_here and self._depth.get((self._main, name), 0) <= 0
            if is_left_here and thread != self._main:
                self._elsewhere.add(name)
            counts = self._has_begun or name in self._elsewhere
            if left and counts and name not in done:
                done.append(name)


def follow_a_cell() -> Walk:
    """Prepare, and train one step; gives the order in which rooms and files were done."""
    walk = Walk()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Recipe(source=Pbmc(), **SETTINGS), f"{folder}/compiled")
        cells = ScRNADataModule(
            Pbmc(), f"{folder}/data", tokenizer=LogBinTokens(8), batch_size=32, **SETTINGS
        )
        trainer = L.Trainer(
            max_steps=1,
            limit_val_batches=0,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        sys.setprofile(walk)
        threading.setprofile(walk)
        try:
            trainer.fit(Model(), datamodule=cells)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    return walk


def list_rooms() -> list[str]:
    """The rooms in the order of the package's docstring."""
    return re.findall(r"^    ([a-z]+)/ ", scdiff_data.__doc__ or "", re.M)


def list_files() -> list[str]:
    """All rooms' files, in the order of the rooms' docstrings."""
    files = []
    for room in list_rooms():
        doc = (PACKAGE / room / "__init__.py").read_text().split('"""')[1]
        names = dict.fromkeys(re.findall(r"`([a-z0-9_]+)`", doc))
        files += [f"{room}/{name}.py" for name in names]
    return files


def share_in_another_order(done: list[str], listed: list[str]) -> float:
    """Of all pairs of files that a cell comes through, those that are listed the other way."""
    places = [listed.index(name) for name in done]
    pairs = list(combinations(places, 2))
    return sum(first > second for first, second in pairs) / len(pairs)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    found = follow_a_cell()
    print("rooms:", *found.rooms)
    print("files:", *found.files)
    print(f"{len(found.files)} files; {share_in_another_order(found.files, list_files()):.0%} of")
    print("the pairs are done with a cell in another order than the one listed")
