"""The package's own exceptions; what else users meet is a ValueError or FileNotFoundError.

ScdiffDataError
├── DownloadError     a file cannot be fetched, or is not what the catalog promised
├── CountError        a file's matrix does not hold counts
│   └── UnsafeFileError   a file leads out of itself, or is larger than it may be
└── ManifestError     the data on disk are damaged, or of other settings
"""

from pathlib import Path


class ScdiffDataError(Exception):
    """Base of the package's own exceptions."""


class DownloadError(ScdiffDataError):
    """A file cannot be fetched, or its bytes are not those that the catalog promised.

    Parameters
    ----------
    message
        What happened, and the way out.
    permanent
        Whether this file is beyond help, so that the draw goes on without it; else the whole bucket
        is out of reach, and the run stops.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class CountError(ScdiffDataError):
    """A file's matrix does not hold counts: the message names file, cell, gene and value."""


class UnsafeFileError(CountError):
    """A file that leads out of itself, or takes more memory than is allowed.

    It is refused as a whole: none of its columns is left out instead.
    """


class ManifestError(ScdiffDataError):
    """The data on disk are damaged or were made with other settings."""

    @classmethod
    def damaged(cls, path: Path, what: str) -> "ManifestError":
        """That of a file whose content cannot be, of a data directory or of a local copy of one."""
        way_out = "delete it and config.json, and prepare again; what is whole stays"
        folders = [folder for folder in path.parents[:2] if (folder / "metadata").is_dir()]
        if any((folder / "bucket.json").exists() for folder in folders):
            first = "" if path.name == "bucket.json" else "delete it and "
            way_out = f"{first}fetch this local copy again, by the same processed_url"
        return cls(f"{path} is damaged ({what}): {way_out}")

    @classmethod
    def replaced(cls, path: Path) -> "ManifestError":
        """That of a file in the place of the one that was opened."""
        return cls(
            f"{path} was replaced by another run of prepare since this data set was opened: open "
            "it again, and give settings that differ a data_dir each"
        )
