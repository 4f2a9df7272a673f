"""Readers beside a writer that keeps replacing what they read: what children do."""

import json
import os
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scdiff_data import Recipe, ScRNADataModule, ScRNADataset, check_data_dir, prepare
from scdiff_data.errors import ManifestError
from scdiff_data.pipeline import assemble
from support.fault_jobs import recipe, write_picture

tqdm.monitor_interval = 0

SETTINGS = ({"n_hvgs": 20, "min_counts": 10}, {"n_hvgs": 30, "min_counts": 60})
"""What the writer alternates between: other genes, and other cells in other archives."""

PAUSE = 0.05
"""Seconds that a reader waits once it is told: it would keep the writer from its work."""

Cells = dict[str, list[int]]
"""Of each training cell's id its counts."""


def read_beside_a_writer(folder: str, n_readers: int, seconds: float) -> list[dict[str, Any]]:
    """Let processes read while one writes; of each what became of its tries, the writer's last."""
    warnings.simplefilter("ignore")
    assemble.plot_hvgs = write_picture
    data_dir, chosen, whole = Path(folder) / "data", [], []
    for changes in SETTINGS:
        prepare(_recipe(changes), data_dir, n_threads=1, replace=True)
        chosen.append(_read(data_dir, changes))
        whole.append(_read_whole(data_dir))
    assert whole[0].keys() != whole[1].keys()
    works = [
        *(_reading(data_dir, *what) for what in zip(SETTINGS, chosen, strict=True)),
        lambda: _read_whole(data_dir) in whole,
        lambda: not check_data_dir(data_dir, n_threads=1),
    ]
    end = time.monotonic() + seconds
    children = []
    for number in range(n_readers + 1):
        said = Path(folder) / f"{number}.json"
        child = os.fork()
        if not child:
            is_writer = number == n_readers
            _repeat(_writing(data_dir) if is_writer else works[number % len(works)], end, said)
        children.append((child, said))
    results = []
    for child, said in children:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = json.loads(said.read_text()) if said.exists() else {"right": 0, "clear": 0}
        results.append(found | {"code": code})
    return results


def _repeat(work: Callable[[], bool], end: float, said: Path) -> None:
    code = 1
    try:
        counts = {"right": 0, "clear": 0}
        while time.monotonic() < end:
            try:
                kind = "right" if work() else "wrong"
            except (ManifestError, FileNotFoundError) as error:
                is_ours = "data" in str(error) and "Errno" not in str(error)
                kind = "clear" if is_ours else "unclear"
                text = traceback.format_exc()
            except Exception:  # noqa: BLE001 - whatever it is, it is what became of the try
                kind, text = "unclear", traceback.format_exc()
            else:
                text = "others' counts, or not all, or whole files are called damaged"
            counts[kind] = counts.get(kind, 0) + 1
            if kind not in ("right", "clear"):
                counts.setdefault("faults", []).append(f"{kind}: {text[-1500:]}")  # type: ignore
            said.write_text(json.dumps(counts))
            if kind == "clear":
                time.sleep(PAUSE)
        code = 0
    finally:
        os._exit(code)


def _writing(data_dir: Path) -> Callable[[], bool]:
    turn = iter(range(1 << 30))

    def write() -> bool:
        prepare(_recipe(SETTINGS[next(turn) % 2]), data_dir, n_threads=1, replace=True)
        time.sleep(0.2)  # or there is nothing to read, most of the time
        return True

    return write


def _reading(data_dir: Path, changes: Mapping[str, Any], wanted: Cells) -> Callable[[], bool]:
    return lambda: _read(data_dir, changes) == wanted


def _read_whole(data_dir: Path) -> Cells:
    """All genes of all cells."""
    counts, metadata = ScRNADataset(data_dir)[:]
    return dict(zip(metadata["cell_id"].tolist(), counts.tolist(), strict=True))


def _read(data_dir: Path, changes: Mapping[str, Any]) -> Cells:
    settings = recipe(None)
    names = ("min_genes", "labels", "shard_size", "min_cells_pct")
    same: dict[str, Any] = {name: getattr(settings, name) for name in names}
    module = ScRNADataModule(
        settings.source, data_dir, split={"by": "cell"}, batch_size=16, **same, **changes
    )
    module.setup()
    cells: Cells = {}
    for counts, metadata in module.train_dataloader():
        cells |= dict(zip(metadata["cell_id"].tolist(), counts.tolist(), strict=True))
    return cells


def _recipe(changes: Mapping[str, Any]) -> Recipe:
    return Recipe.from_settings(recipe(None).settings(), source=recipe(None).source, **changes)
