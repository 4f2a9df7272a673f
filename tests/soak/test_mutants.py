"""Damaged files: the counts are right, or an error of ours names the file."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from support import mutant_sources
from support.isolated import Isolated, Outcome
from support.tally import Tally, choose, describe, is_own, tally_of

pytestmark = pytest.mark.soak

SEED = 1
"""Of all mutants."""

N_SOURCES = 20_000
"""Damaged source files."""

N_FOREIGN = 2_000
"""Damaged sources of each kind that is no h5ad."""

N_DIRECTORIES = 2_000
"""Damaged files of each kind that a prepared directory has."""

N_RESEALED = 1_000
"""Files of each kind that say what cannot be, with a right checksum."""

KINDS_ON_DISK = (
    "config.json",
    "hvg_info.json",
    "archives",
    "records",
    "statistics",
    "tables",
    "experiments.json",
    "dense shards",
    "compact shards",
    "fits of tokenizers",
)
"""The kinds of files that `mutant_directories` knows: it loads torch, in processes of its own."""

RESEALED = (
    "resealed config.json",
    "resealed hvg_info.json",
    "resealed records",
    "resealed experiments.json",
    "resealed fits of tokenizers",
)
"""The same, with checksums that are right."""

BATCH = 50
"""Mutants a process."""

LIMIT = 30.0
"""Seconds after which one is taken to hang."""


@pytest.fixture(scope="module")
def isolated() -> Iterator[Isolated]:
    with Isolated("support.mutant_sources") as isolated:
        yield isolated


def count(tally: Tally, outcome: Outcome, name: str) -> None:
    """Count what became of a mutant; `name` is the damaged file's."""
    printed = outcome.text.strip().splitlines()[-45:]
    if outcome.how == "returned":
        tally.add(outcome.value["kind"], outcome.value["what"])
    elif outcome.how == "raised":
        own = is_own(outcome, name)
        tally.add("clear" if own else "unclear", describe(outcome))
    else:
        tally.add(outcome.how, f"signal {outcome.signal}\n" + "\n".join(printed))


def try_mutants(
    isolated: Isolated, job: str, numbers: Sequence[int], where: Mapping[str, str]
) -> Iterator[Outcome]:
    """What becomes of a job over mutants, some at a time in one process."""
    for start in range(0, len(numbers), BATCH):
        chosen = numbers[start : start + BATCH]
        batch = [{**where, "seed": SEED, "number": number} for number in chosen]
        yield from isolated.run(job, batch, limit=LIMIT)


@pytest.mark.parametrize("kind", [*mutant_sources.KINDS, *mutant_sources.SUFFIXES])
def test_a_damaged_source_file_gives_its_counts_or_an_error_that_names_it(
    isolated: Isolated, tmp_path: Path, kind: str
) -> None:
    mutant_sources.write_whole(tmp_path)
    is_foreign = kind in mutant_sources.SUFFIXES
    n = N_FOREIGN if is_foreign else N_SOURCES // len(mutant_sources.KINDS)
    numbers = choose(range(n), kind)
    with tally_of(f"damaged source files, {kind}") as tally:
        job = "support.mutant_sources:try_source"
        where = {"kind": kind, "sources": str(tmp_path), "folder": str(tmp_path)}
        for outcome in try_mutants(isolated, job, numbers, where):
            if outcome.how in ("crashed", "hung") and mutant_sources.is_anndatas(outcome):
                tally.add("right")  # ours were made; the comparison broke
            else:
                count(tally, outcome, "mutant." if is_foreign else "mutant.h5ad")


@pytest.fixture(scope="module")
def readers() -> Iterator[Isolated]:
    with Isolated("support.mutant_directories") as isolated:
        yield isolated


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, readers: Isolated) -> Path:
    """Directories that are not damaged."""
    folder = tmp_path_factory.mktemp("whole")
    job = "support.mutant_directories:write_whole_at"
    (outcome,) = readers.run(job, [{"folder": str(folder)}])
    assert outcome.how == "returned", describe(outcome)
    return folder


@pytest.mark.parametrize("kind", [*KINDS_ON_DISK, *RESEALED])
def test_a_damaged_file_of_a_prepared_directory_is_named_or_changes_nothing(
    readers: Isolated, whole: Path, tmp_path: Path, kind: str
) -> None:
    numbers = choose(range(N_RESEALED if kind in RESEALED else N_DIRECTORIES), kind)
    with tally_of(kind if kind in RESEALED else f"damaged {kind}") as tally:
        job = "support.mutant_directories:try_directory"
        where = {"kind": kind, "whole": str(whole), "folder": str(tmp_path)}
        for outcome in try_mutants(readers, job, numbers, where):
            count(tally, outcome, str(tmp_path))
