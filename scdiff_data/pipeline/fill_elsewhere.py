"""The same archives, made by workers elsewhere: a task fetches a file, archives and sums it.

Tasks are sent in the order of the draw, as many as are sure to be needed, and their records are
taken in that order. What came of a later one is known before: it may show that more are needed, or
no more. So nothing is fetched that the draw does not come to.
"""

from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scdiff_data.base import FileEntry
from scdiff_data.errors import CountError, DownloadError
from scdiff_data.executors import Abandoned, Crew, Done, count_cores
from scdiff_data.fetching import download, is_whole
from scdiff_data.pipeline.make_archives import (
    ArchiveMaker,
    FileJob,
    Outcome,
    sum_archive,
    write_group,
)
from scdiff_data.reading import GeneAxis
from scdiff_data.recipes import PrepareOptions
from scdiff_data.sources import Bucket, CatalogRow, DrawOrder
from scdiff_data.store import DataDirectory, ExperimentRecord

_MOST_SENT = 256
"""Tasks that wait or run at the most, unless there are more than a quarter as many workers."""


@dataclass(frozen=True)
class Draw:
    """From which experiments how many cells are drawn.

    Parameters
    ----------
    order
        The experiments, in the order in which they are tried.
    wanted
        Cells; None takes all there are.
    axis, stored
        The reference genes, if they are known; and those of an earlier run, else.
    """

    order: DrawOrder
    wanted: int | None
    axis: GeneAxis | None
    stored: GeneAxis | None


@dataclass(frozen=True)
class FetchJob:
    """A file to be fetched, and what is to be made of it; it can be pickled.

    Parameters
    ----------
    file
        What is to be made.
    bucket
        Where the file is.
    kept
        Where it is if an earlier run fetched it.
    """

    file: FileJob
    bucket: Bucket
    kept: Path


@dataclass(frozen=True)
class Made:
    """What a task made of a file.

    Parameters
    ----------
    outcomes, axis
        What became of each experiment, and the genes that archives are over.
    files
        The archives, whose paths begin at the task's folder.
    """

    outcomes: Mapping[str, Outcome]
    axis: GeneAxis
    files: Mapping[str, FileEntry]


def make_file(job: FetchJob, folder: Path) -> Made | CountError | DownloadError:
    """In a worker: fetch a file, archive and sum its experiments in a folder."""
    place = DataDirectory(folder)
    file = replace(job.file, n_threads=min(job.file.n_threads, count_cores()))
    try:
        outcomes, axis = write_group(file, _fetch(job, place), place)
    except (CountError, DownloadError) as error:
        if isinstance(error, DownloadError) and not error.permanent:
            raise
        return error
    files = {
        row.experiment_id: sum_archive(file, row, place)
        for row in file.rows
        if not isinstance(outcome := outcomes[row.experiment_id], CountError) and outcome.n_cells
    }
    return Made(outcomes, axis, files)


def _fetch(job: FetchJob, place: DataDirectory) -> Path:
    """The file, on a disk of this machine."""
    row = job.file.rows[0]
    file_system, root = job.bucket.connect()
    names = file_system.protocol
    is_local = "file" in ((names,) if isinstance(names, str) else names)
    if is_local and not Path(root).is_dir():  # its files would seem to be gone
        raise FileNotFoundError(
            f"{root}, where the source's files are, is not there: every worker needs it under the "
            "same path; mount it there"
        )
    if is_local and job.file.layout.in_place:
        return Path(f"{root}/{row.path}")
    if is_whole(job.kept, row.size, row.checksum):
        return job.kept
    with job.bucket.explain_refusals():  # says within seconds that this machine has no network
        pass
    return download(
        file_system,
        f"{root}/{row.path}",
        place.downloads / job.kept.name,
        size=row.size,
        checksum=row.checksum,
        cancelled=Abandoned(place.path),
    )


class FillElsewhere:
    """Sends experiments to workers, and gives each with its record, in the order of the draw.

    Parameters
    ----------
    maker
        What is known of experiments.
    crew
        Who makes archives.
    directory
        Where these go.
    bucket
        Where the catalog's files are.
    draw
        Which experiments are tried.
    options
        How it is done.
    """

    def __init__(
        self,
        maker: ArchiveMaker,
        crew: Crew,
        directory: DataDirectory,
        bucket: Bucket,
        draw: Draw,
        options: PrepareOptions,
    ) -> None:
        self._coming: deque[CatalogRow] = deque()  # the draw is sure to come to them
        self._axis = draw.axis  # as soon as it is known
        self._maker, self._crew, self._directory = maker, crew, directory
        self._bucket, self._draw, self._options = bucket, draw, options
        self._at = 0  # the first of those that wait
        self._known: dict[str, ExperimentRecord] = {}
        self._sent: dict[int, FileJob] = {}
        self._flying: set[str] = set()
        self._is_divided = False  # some of a group are to be sent one by one
        # Of those coming, the cells that each can have at the most, and their sum: exact for those
        # that are done.
        self._most: dict[str, int] = {}
        self._n_most = 0
        # Where a machine does several tasks, its cores are divided among them.
        self._n_threads = crew.n_threads or options.n_threads

    def run(self) -> Generator[tuple[CatalogRow, ExperimentRecord]]:
        """Each experiment and its record, until the cells are enough."""
        n_cells = 0
        while self._draw.wanted is None or n_cells < self._draw.wanted:
            self._send_needed(n_cells)
            if not self._coming:
                break
            if (found := self._pop_next()) is None:
                self._take()
                continue
            _, record = found
            n_cells += record.n_cells
            if record.n_cells and self._axis is None:
                self._axis = GeneAxis.read(self._directory.genes)
            yield found

    def _send_needed(self, n_cells: int) -> None:
        """Send what is sure to be needed beyond the cells that are there."""
        if self._is_divided:
            self._is_divided = False
            for row in self._coming:
                if not (row.experiment_id in self._known or row.experiment_id in self._flying):
                    self._send(row, n_cells)
        wanted = self._draw.wanted
        most = max(_MOST_SENT, 4 * self._crew.n_workers)
        while self._at < len(self._draw.order) and len(self._sent) < most:
            if wanted is not None and n_cells + self._n_most >= wanted:
                break
            if self._axis is None and self._coming:  # its genes are those of all that follow
                break
            row = self._draw.order[self._at]
            if not (row.experiment_id in self._flying or self._find(row)):
                if row.columns.get("unit") is not None and self._is_on_its_way(row.path):
                    break
                self._send(row, n_cells)
            self._coming.append(row)
            self._at += 1
            record = self._known.get(row.experiment_id)
            self._expect(row, self._maker.most_cells(row) if record is None else record.n_cells)

    def _pop_next(self) -> tuple[CatalogRow, ExperimentRecord] | None:
        """The next experiment and its record; None if it is not done."""
        row = self._coming[0]
        if (record := self._known.pop(row.experiment_id, None)) is None:
            return None
        self._n_most -= self._most.pop(row.experiment_id)
        return self._coming.popleft(), record

    def _take(self) -> None:
        """Wait for a task, put what it made into its place, and note it."""
        done = self._crew.take()
        job = self._sent.pop(done.number)
        self._flying -= {row.experiment_id for row in job.rows}
        first, *others = job.rows
        self._is_divided |= bool(others)
        self._keep_download(done, first)
        if not isinstance(done.value, Made):
            if others:
                self._maker.read_alone(first)
            else:
                self._note(first, self._maker.leave_out(first, str(done.value)))
            return

        def finish(row: CatalogRow) -> FileEntry:
            name, place = row.experiment_id, DataDirectory(done.folder)
            done.move(place.archive(name), self._directory.archive(name))
            done.move(place.statistics(name), self._directory.statistics(name))
            return made.files[name]

        made: Made = done.value
        self._note(first, self._maker.settle(job, made.outcomes, made.axis, finish))
        for row in others:
            if (found := self._maker.find(row, self._axis)) is not None:
                self._note(row, found)

    def _find(self, row: CatalogRow) -> bool:
        """Whether it is known what became of an experiment."""
        axis, is_first = self._axis or self._draw.stored, self._axis is None
        record = self._maker.find(row, axis, is_reference=is_first)
        if record is None and self._maker.is_unreadable(row):
            record = self._maker.leave_out(row, str(row.columns["problem"]))
        if record is not None:
            self._note(row, record)
        return record is not None

    def _note(self, row: CatalogRow, record: ExperimentRecord) -> None:
        self._known[row.experiment_id] = record
        if row.experiment_id in self._most:
            self._expect(row, record.n_cells)

    def _expect(self, row: CatalogRow, n_cells: int) -> None:
        self._n_most += n_cells - self._most.get(row.experiment_id, 0)
        self._most[row.experiment_id] = n_cells

    def _send(self, row: CatalogRow, n_cells: int) -> None:
        wanted, waiting = self._draw.wanted, self._draw.order[self._at :]
        others = (other for other in waiting if other.experiment_id != row.experiment_id)
        n_missing = None if wanted is None else wanted - n_cells - self._n_most
        axis = self._axis or self._draw.stored
        together = self._maker.choose_together(row, others, axis, n_missing)
        job = self._maker.plan_file([row, *together], self._axis, self._n_threads)
        kept = self._directory.downloads / row.local_name
        about = f"experiment {row.experiment_id}"
        number = self._crew.send(make_file, FetchJob(job, self._bucket, kept.absolute()), about)
        self._sent[number] = job
        self._flying |= {one.experiment_id for one in job.rows}

    def _is_on_its_way(self, path: str) -> bool:
        return any(job.rows[0].path == path for job in self._sent.values())

    def _keep_download(self, done: Done, row: CatalogRow) -> None:
        """A file of further experiments is fetched once."""
        fetched = DataDirectory(done.folder).downloads / row.local_name
        is_kept = self._options.keep_downloads or row.columns.get("unit") is not None
        if is_kept and fetched.exists():
            done.move(fetched, self._directory.downloads / fetched.name)
