"""A folder to write to, asked for before the work of measuring."""

import os
from pathlib import Path

from compression.errors import CompressionError


def make_folder(folder: Path, option: str) -> None:
    """Make the folder of an option; CompressionError where there can be none, or none to write to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise CompressionError(f"{option} {folder}: a file is in the folder's place") from error
    except OSError as error:
        raise CompressionError(
            f"{option} {folder}: expected a folder to write to, {error.strerror}"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CompressionError(f"{option} {folder}: expected a folder to write to, read-only")
