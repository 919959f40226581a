"""Transforms of the images: Detectron2's, and what SSD needs besides."""

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from detectron2.projects.point_rend import ColorAugSSDTransform
from fvcore.transforms.transform import PadTransform
from PIL import Image

_INTERPOLATIONS = (
    Image.Resampling.NEAREST,
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.BOX,
    Image.Resampling.LANCZOS,
)


class ExpandTransform(PadTransform):
    """Place the image on a larger canvas of one colour."""

    def __init__(self, x0: int, y0: int, x1: int, y1: int, color: Sequence[float]) -> None:
        """
        Args:
            x0, y0, x1, y1: pixels to add left, above, right and below.
            color: of the canvas, in the image's channel order.
        """
        super().__init__(x0, y0, x1, y1)
        self.color = color

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        height, width = img.shape[:2]
        size = (height + self.y0 + self.y1, width + self.x0 + self.x1, img.shape[2])
        canvas = np.empty(size, dtype=img.dtype)
        canvas[:] = np.asarray(self.color).round().astype(img.dtype)
        canvas[self.y0 : self.y0 + height, self.x0 : self.x0 + width] = img
        return canvas


class RandomShrink(T.Augmentation):
    """
    The first half of SSD's "zoom out": the image warped to its size on a square canvas that is
    s * r times as wide and s / r times as high, with an interpolation drawn at random. s is uniform
    in [1, ``max_ratio``], r² in [1 / ``max_stretch``, ``max_stretch``] as far as the image fits. To
    shrink the image instead of enlarging the canvas leaves all that follows fewer pixels.
    """

    def __init__(
        self, size: int, prob: float = 0.6, max_ratio: float = 4.0, max_stretch: float = 2.0
    ) -> None:
        """
        Args:
            size: side of the canvas in pixels.
            prob: that the image is shrunk at all.
            max_ratio: of the canvas to the image, by the root of their areas.
            max_stretch: change of the aspect ratio, 1 or more.
        """
        super().__init__()
        self.size = size
        self.prob = prob
        self.max_ratio = max_ratio
        self.max_stretch = max_stretch

    def get_transform(self, image: np.ndarray) -> T.Transform:
        interp = _INTERPOLATIONS[np.random.randint(len(_INTERPOLATIONS))]
        ratio = stretch = 1.0
        if self._rand_range() < self.prob:
            ratio = self._rand_range(1.0, self.max_ratio)
            widest = min(self.max_stretch, ratio**2)
            stretch = self._rand_range(1 / widest, widest) ** 0.5
        height, width = (
            max(1, round(self.size / side)) for side in (ratio / stretch, ratio * stretch)
        )
        return T.ResizeTransform(*image.shape[:2], height, width, interp)


class RandomPlace(T.Augmentation):
    """The second half: the image somewhere on a square canvas of one colour."""

    def __init__(self, size: int, color: Sequence[float]) -> None:
        """
        Args:
            size: side of the canvas in pixels, no smaller than the image's. color: its colour, in
            the image's channel order.
        """
        super().__init__()
        self.size = size
        self.color = color

    def get_transform(self, image: np.ndarray) -> T.Transform:
        more_y, more_x = (self.size - side for side in image.shape[:2])
        x0, y0 = np.random.randint(more_x + 1), np.random.randint(more_y + 1)
        return ExpandTransform(x0, y0, more_x - x0, more_y - y0, self.color)


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation | T.Transform]:
    """
    What follows the crop, in order. With INPUT.SQUARE_SIZE the image is warped to a square, without
    it Detectron2's own list applies.
    """
    size = cfg.INPUT.SQUARE_SIZE
    if size == 0:
        return build_augmentation(cfg, is_train)
    if not is_train:
        return [T.Resize(size)]
    if not cfg.INPUT.SSD_AUGMENTATION:
        return [T.RandomFlip(), T.Resize(size)]
    return [
        RandomShrink(size),
        ColorAugSSDTransform(img_format=cfg.INPUT.FORMAT),
        RandomPlace(size, cfg.MODEL.PIXEL_MEAN),
        T.RandomFlip(),
    ]
