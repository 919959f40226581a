#!/usr/bin/env python3
"""
Download PASCAL VOC 2007 and 2012 into Detectron2's layout.

    python datasets/prepare_voc.py                  # datasets/VOC2007 and datasets/VOC2012
    python datasets/prepare_voc.py --parts VOC2007
"""

from pathlib import Path

from download import Archive, Part, main

BASE = "http://host.robots.ox.ac.uk/pascal/VOC"


def count(folder: Path) -> dict[str, int]:
    """Images, annotations and the ids of the splits."""
    counts = {
        "images": len(list(folder.glob("JPEGImages/*.jpg"))),
        "annotations": len(list(folder.glob("Annotations/*.xml"))),
    }
    for split in ("trainval", "test"):
        path = folder / "ImageSets" / "Main" / f"{split}.txt"
        counts[split] = len(path.read_text().splitlines()) if path.is_file() else 0
    return counts


# The md5 sums are those that torchvision checks.
PARTS = (
    Part(
        folder="VOC2007",
        archives=(
            Archive("voc2007/VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64"),
            Archive("voc2007/VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f"),
        ),
        inside="VOCdevkit/VOC2007",
        count=count,
        expected={"images": 9963, "annotations": 9963, "trainval": 5011, "test": 4952},
    ),
    Part(
        folder="VOC2012",
        archives=(
            Archive("voc2012/VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd"),
        ),
        inside="VOCdevkit/VOC2012",
        count=count,
        expected={"images": 17125, "annotations": 17125, "trainval": 11540},
    ),
)

if __name__ == "__main__":
    main(__doc__, BASE, PARTS)
