#!/usr/bin/env python3
"""
Download BCCD, 364 images of blood cells (MIT licence, (c) 2017 shenggan), in VOC's layout.

    python datasets/prepare_bccd.py                 # datasets/BCCD, 9 MB
"""

import hashlib
from pathlib import Path

from download import Archive, Part, main

BASE = "https://github.com/Shenggan/BCCD_Dataset"
SPLITS = ("train", "val", "trainval", "test")


def count(folder: Path) -> dict[str, int | str]:
    """Images, annotations, the ids of the splits, and a digest of what the annotations say."""
    splits = [folder / "ImageSets" / "Main" / f"{split}.txt" for split in SPLITS]
    annotations = sorted(folder.glob("Annotations/*.xml"))
    counts = {
        "images": len(list(folder.glob("JPEGImages/*.jpg"))),
        "annotations": len(annotations),
    }
    for path in splits:
        counts[path.stem] = len(path.read_text().split()) if path.is_file() else 0
    return counts | {"digest": digest(annotations + [path for path in splits if path.is_file()])}


def digest(paths: list[Path]) -> str:
    """Of files' names and words, whatever their line ends and indentation are."""
    found = hashlib.sha256()
    for path in paths:
        found.update(b" ".join([path.name.encode(), *path.read_bytes().split(), b""]))
    return found.hexdigest()[:16]


# The repository has no releases. GitHub packs its newest state for every download, and the bytes of
# such an archive are not the same for ever: what came out is compared with the data of the results
# page, and the archive's own CRC-32 sums guard the images.
PARTS = (
    Part(
        folder="BCCD",
        archives=(Archive("archive/refs/heads/master.zip", None, ".BCCD.zip"),),
        inside="BCCD_Dataset-master/BCCD",
        count=count,
        expected={
            "images": 364,
            "annotations": 364,
            "train": 205,
            "val": 87,
            "trainval": 292,
            "test": 72,
            "digest": "20007b30d868550d",
        },
    ),
)

if __name__ == "__main__":
    main(__doc__, BASE, PARTS)
