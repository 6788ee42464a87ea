"""Where this project keeps what it makes once."""

import os
from pathlib import Path

from compression.errors import CompressionError


def cache_folder() -> Path:
    """Return this project's folder below the XDG cache folder.

    A relative $XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification asks.
    CompressionError where neither it nor a home folder is known.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        root = root if root.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:  # a container's user without an entry and without $HOME
        raise CompressionError(
            "no folder for the cache: this user has no home folder; set XDG_CACHE_HOME to an "
            "absolute path"
        ) from error
    return root / "dnn-compression-suite"
