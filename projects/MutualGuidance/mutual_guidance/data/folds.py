"""
Cross-validation: the images of several splits of a VOC layout, divided anew.

The ``split`` of an entry of ``DATASETS.REGISTER`` is then a mapping instead of a name::

    {of: [train, val, test], folds: 4, seed: 1, fold: 2, part: test}

names the second of four folds of all images, and ``part: train`` the images of the other three.
"""

import hashlib
from collections.abc import Iterable

from ..errors import DatasetError

_KEYS = {"of", "folds", "seed", "fold", "part"}
PARTS = ("train", "test")


def check_fold(split: dict) -> None:
    """Raise DatasetError for a mapping that names no part of a fold."""
    fits = (
        split.keys() == _KEYS
        and isinstance(split["of"], list)
        and all(isinstance(name, str) for name in split["of"])
        and all(type(split[key]) is int for key in ("folds", "seed", "fold"))
        and 1 <= split["fold"] <= split["folds"] >= 2
        and split["part"] in PARTS
    )
    if not fits:
        raise DatasetError(
            "DATASETS.REGISTER: a split is a name, or, for cross-validation, a mapping such as "
            f"{{of: [train, val], folds: 4, seed: 1, fold: 2, part: test}}, got {split}"
        )


def fold_part(ids: Iterable[str], split: dict) -> list[str]:
    """
    The ids of a part of a fold, sorted. Which ids have a fold in common depends on the ids and the
    seed alone, not on their order nor on any library's random numbers. The folds' sizes differ by
    one at most.

    Raises:
        DatasetError: there are fewer images than folds.
    """

    def shuffled(image_id: str) -> str:
        return hashlib.sha256(f"{split['seed']} {image_id}".encode()).hexdigest()

    order = sorted(set(ids), key=shuffled)
    if len(order) < split["folds"]:
        raise DatasetError(f"{len(order)} images cannot be divided into {split['folds']} folds")
    held_out = order[split["fold"] - 1 :: split["folds"]]
    return sorted(held_out if split["part"] == "test" else set(order) - set(held_out))
