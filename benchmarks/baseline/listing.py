"""Which images lie in folders train/CLASS, val/CLASS and test/CLASS, before any of them is opened."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.baseline.images import suffixes
from compression.errors import CompressionError

VALIDATION = ("val", "valid", "validation")


@dataclass(frozen=True, slots=True)
class Listed:
    """The images of a split: files, labels, and what tells each file from a change of it."""

    files: list[Path]
    labels: list[int]
    stamps: list[str]


def parts_of(root: Path) -> dict[str, Path]:
    """Return the folders of the splits by "train", "test" and, where there is one, "validation".

    CompressionError where `root` is none, or has no train/ or test/.
    """
    if not root.is_dir():
        raise CompressionError(f"{root}: no such folder of images")
    folders = {part: root / part for part in ("train", "test")}
    validation = next((root / name for name in VALIDATION if (root / name).is_dir()), None)
    lacking = [f"{part}/" for part in ("train", "test") if not folders[part].is_dir()]
    if lacking:
        found = ", ".join(sorted(f"{p.name}/" for p in root.iterdir() if p.is_dir())[:8])
        raise CompressionError(
            f"{root}: expected folders train/CLASS and test/CLASS, and val/CLASS where you have them, "
            f"found no {' and no '.join(lacking)} but {found or 'no folder'}"
        )
    return folders if validation is None else folders | {"validation": validation}


def classes_of(root: Path) -> list[str]:
    """Return the names of the class folders in order; CompressionError unless all splits have them."""
    found = {folder: _class_names(folder) for folder in parts_of(root).values()}
    (first, names), *others = found.items()
    for folder, others_names in others:
        for only, lacks in ((names, others_names), (others_names, names)):
            missing = sorted(set(only) - set(lacks))
            if missing:
                here, there = (first, folder) if only is names else (folder, first)
                raise CompressionError(
                    f"{root}: {here.name} and {there.name} must have the same class folders, found "
                    f"only in {here.name}: {', '.join(missing[:8])}"
                )
    if not names:
        raise CompressionError(f"{first}: expected one folder per class, found none")
    return names


def listed_images(root: Path) -> dict[str, Listed]:
    """Return the images of each split by "train", "test" and, where there is one, "validation".

    Those of a class lie at any depth below its folder; what begins with a dot is left out.
    CompressionError for folders that are not as `classes_of` wants them, and for an empty class.
    """
    names, known = classes_of(root), suffixes()
    return {part: _listed(folder, names, known) for part, folder in parts_of(root).items()}


def first_image(root: Path) -> Path:
    """Return the first training image; CompressionError where its class has none."""
    return _images_of(root / "train" / classes_of(root)[0], suffixes())[0][0]


def _class_names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _listed(folder: Path, names: list[str], known: set[str]) -> Listed:
    files: list[Path] = []
    labels: list[int] = []
    stamps: list[str] = []
    for label, name in enumerate(names):
        found = _images_of(folder / name, known)
        files += [file for file, _ in found]
        stamps += [stamp for _, stamp in found]
        labels += [label] * len(found)
    return Listed(files, labels, stamps)


def _images_of(folder: Path, known: set[str]) -> list[tuple[Path, str]]:
    """Return the images of a class in order, each with its stamp; CompressionError without any."""
    found = [*_images_in(folder, known)]
    if not found:
        raise CompressionError(f"{folder}: class folder without images (.png, .jpg, ...)")
    return found


def _images_in(folder: Path, known: set[str]) -> Iterator[tuple[Path, str]]:
    """Yield the images below a folder in order, each with its size and time of modification."""
    with os.scandir(folder) as entries:
        found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    for entry in found:
        if entry.is_dir():
            yield from _images_in(folder / entry.name, known)
        elif os.path.splitext(entry.name)[1].lower() in known:  # noqa: PTH122 - a Path costs more
            try:
                about = entry.stat()
            except OSError as error:
                raise CompressionError(
                    f"{entry.path}: not a readable image ({error.strerror or error})"
                ) from error
            yield folder / entry.name, f"{about.st_size} {about.st_mtime_ns}"
