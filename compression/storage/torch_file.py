"""What torch.save wrote, read without trust in it."""

import io
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from compression.errors import CheckpointError
from compression.storage.formats import foreign_zip

_ZIP_MAGIC = b"PK\x03\x04"
_DIRECTORY = 0x10  # of DOS, in an entry's external attributes


def is_zip(path: Path) -> bool:
    """Tell whether a file begins as the zip of torch.save does."""
    with path.open("rb") as file:
        return file.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC


def read_torch(path: Path) -> Any:
    """Return the object in a zip, read with weights_only; CheckpointError for damage."""
    checked = _check_zip(path)
    try:
        return torch.load(checked, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|Unsupported class) ([\w.]+)", str(error))
        raise CheckpointError(
            f"{path}: holds more than tensors (a whole model, or code"
            f"{f': {found[1]}' if found else ''}), which is not run; save model.state_dict() instead"
        ) from error
    except Exception as error:  # a crafted pickle raises anything
        raise CheckpointError(f"{path}: damaged torch file ({error!r})") from error


def _check_zip(path: Path) -> io.BytesIO:
    """Return a zip of the entries' bytes after their CRC-32 is checked, and of nothing else of it.

    torch.load checks no CRC-32, and reads a zip in another way than zipfile: an entry that its
    attributes call a folder it leaves as the memory was. It gets a zip that zipfile wrote.
    """
    clean = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(clean, "w") as target:
            what = foreign_zip(archive)
            if what is not None:
                raise CheckpointError(f"{path}: expected a state dict of torch.save, found {what}")
            _check_entries(path, archive, path.stat().st_size)
            for entry in archive.infolist():
                target.writestr(zipfile.ZipInfo(entry.filename), archive.read(entry))
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        name = re.search(r"Bad CRC-32 for file '(.*)'", str(error))
        if name is None:
            raise CheckpointError(f"{path}: damaged or truncated torch file ({error})") from error
        raise CheckpointError(f"{path}: damaged at {name[1]} (CRC); copy the file again") from error
    except Exception as error:  # zipfile's own list is long, and not documented
        raise CheckpointError(f"{path}: damaged or truncated torch file ({error})") from error
    clean.seek(0)
    return clean


def _check_entries(path: Path, archive: zipfile.ZipFile, size: int) -> None:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError(f"{path}: compressed entries, which torch.save never writes")
    folders = [e.filename for e in entries if e.is_dir() or e.external_attr & _DIRECTORY]
    if folders:
        raise CheckpointError(
            f"{path}: damaged at {folders[0]}, an entry of data that says it is a folder; copy the "
            "file again"
        )
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names) or sum(entry.file_size for entry in entries) > size:
        raise CheckpointError(f"{path}: damaged torch file, its entries overlap or occur twice")
