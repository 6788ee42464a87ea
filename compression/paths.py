"""Where this project keeps what it makes once."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return this project's folder below the XDG cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "dnn-compression-suite"
