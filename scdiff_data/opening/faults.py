"""What goes wrong while a file of anyone's is read: one error of file, element and reason."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scdiff_data.errors import CountError


@contextmanager
def explain(path: Path, element: str) -> Iterator[None]:
    """Turn what anndata, h5py, numba, numpy or scipy raise over an element into a CountError.

    What is not the file's fault passes: a missing plug-in, a full disk, too many open files.
    """
    try:
        yield
    except (CountError, ImportError, MemoryError):
        raise
    except Exception as error:  # a damaged file makes libraries raise anything
        if getattr(error, "errno", None) or "No space left" in str(error):
            raise
        what = " ".join(str(error).split()) or "no reason given"
        raise CountError(
            f"{path.name} cannot be read: {element}: {type(error).__name__}: {what[:300]}"
        ) from error
