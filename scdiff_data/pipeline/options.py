"""How a data directory is made; nothing here decides what is in it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How stages run: the same recipe gives the same bytes under any options.

    Parameters
    ----------
    n_threads
        Downloads at a time; threads that inflate, sum, sort and fill, as far as there are cores;
        and shards written at a time.
    max_memory
        Bytes that the conversion of one file may take, and then the shards, all threads together;
        at least 1 MiB.
    keep_downloads
        Whether source files stay in `downloads/` once they are archived.
    refresh_catalog
        Whether the catalog's snapshot is renewed.
    retry_failed
        Whether experiments that failed for good are tried again.

    Raises
    ------
    ValueError
        If a value is out of its range.
    """

    n_threads: int = 4
    max_memory: int = 1 << 30
    keep_downloads: bool = False
    refresh_catalog: bool = False
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if self.n_threads < 1 or self.max_memory < 1 << 20:
            raise ValueError(
                f"n_threads must be at least 1 and max_memory at least 1 MiB, got {self.n_threads} "
                f"and {self.max_memory}"
            )
