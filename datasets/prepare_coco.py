#!/usr/bin/env python3
"""
Download MS COCO 2017 into Detectron2's layout: 20 GB, and as much again while it unpacks.

    python datasets/prepare_coco.py                 # all below datasets/coco
    python datasets/prepare_coco.py --parts coco/val2017 coco/annotations
"""

import json
from pathlib import Path

from download import Archive, Part, main

BASE = "http://images.cocodataset.org"


def count_images(folder: Path) -> dict[str, int]:
    """Images of a split."""
    return {"images": len(list(folder.glob("*.jpg")))}


def count_annotations(folder: Path) -> dict[str, int]:
    """Images and boxes that the two splits' files list."""
    counts = {}
    for split in ("train", "val"):
        path = folder / f"instances_{split}2017.json"
        try:
            content = json.loads(path.read_bytes()) if path.is_file() else {}
        except ValueError:  # torn
            content = {}
        counts[f"{split} images"] = len(content.get("images", ()))
        counts[f"{split} boxes"] = len(content.get("annotations", ()))
    return counts


# The md5 sums are those that PaddleDetection checks.
PARTS = (
    Part(
        folder="coco/annotations",
        archives=(
            Archive("annotations/annotations_trainval2017.zip", "f4bbac642086de4f52a3fdda2de5fa2c"),
        ),
        inside="annotations",
        count=count_annotations,
        expected={
            "train images": 118287,
            "train boxes": 860001,
            "val images": 5000,
            "val boxes": 36781,
        },
    ),
    Part(
        folder="coco/val2017",
        archives=(Archive("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80"),),
        inside="val2017",
        count=count_images,
        expected={"images": 5000},
    ),
    Part(
        folder="coco/train2017",
        archives=(Archive("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2"),),
        inside="train2017",
        count=count_images,
        expected={"images": 118287},
    ),
)

if __name__ == "__main__":
    main(__doc__, BASE, PARTS)
