"""Transforms of the images, from Detectron2's."""

from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """
    Augmentations for training or testing: with INPUT.SQUARE_SIZE the image is warped to a square,
    without it Detectron2's own list applies.
    """
    if cfg.INPUT.SQUARE_SIZE == 0:
        return build_augmentation(cfg, is_train)
    augmentations: list[T.Augmentation] = [T.RandomFlip()] if is_train else []
    return [*augmentations, T.Resize(cfg.INPUT.SQUARE_SIZE)]
