"""Transforms of the images: Detectron2's, and what SSD needs besides."""

from collections.abc import Sequence

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation
from detectron2.projects.point_rend import ColorAugSSDTransform
from fvcore.transforms.transform import CropTransform, PadTransform
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


class MinIoURandomCrop(T.MinIoURandomCrop):
    """
    Detectron2's, with the same crops from the same random numbers. There PyTorch's operators on a
    few boxes, for up to 50 patches a threshold, take two thirds of a loader's time.
    """

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> T.Transform:
        """
        Args:
            image: (H, W, C). boxes: (M, 4), XYXY in pixels.
        """
        for _ in range(self.mode_trials):
            min_iou = np.random.choice(self.sample_mode)
            if min_iou == 1:
                break
            for _ in range(self.crop_trials):
                patch = self._draw_patch(*image.shape[:2])
                if patch is not None and _covers(patch, boxes, min_iou):
                    return CropTransform(*map(int, patch))
        return T.NoOpTransform()

    def _draw_patch(self, height: int, width: int) -> tuple[float, float, float, float] | None:
        """Left, top, width and height; None if it is too narrow, too low or empty."""
        new_width, new_height = (
            np.random.uniform(self.min_crop_size * side, side) for side in (width, height)
        )
        if not 0.5 <= new_height / new_width <= 2:
            return None
        # Between the number given and NumPy's other bound, 1, as Detectron2 draws it.
        left, top = np.random.uniform(width - new_width), np.random.uniform(height - new_height)
        if int(left) == int(left + new_width) or int(top) == int(top + new_height):
            return None
        return left, top, new_width, new_height


def _covers(patch: tuple[float, float, float, float], boxes: np.ndarray, min_iou: float) -> bool:
    """Whether the patch has that IoU with every box, and the centre of some, if there are any."""
    if not len(boxes):
        return True
    left, top, width, height = patch
    low = np.array((int(left), int(top)))
    high = np.array((int(left + width), int(top + height)))
    if _ious(low, high, boxes).min() < np.float32(min_iou):
        return False
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres > low) & (centres < high)).all(axis=1).any()


def _ious(low: np.ndarray, high: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Of a patch and boxes (M, 4): (M,), in float32, as Detectron2's of the same numbers."""
    low, high, boxes = (array.astype(np.float32) for array in (low, high, boxes))
    sides = np.minimum(high, boxes[:, 2:]) - np.maximum(low, boxes[:, :2])
    common = sides.clip(min=0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return common / ((high - low).prod() + areas - common)


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
    What follows the crop, in order. With INPUT.SQUARE_SIZE the image is warped to a square, and of
    Detectron2's keys INPUT.RANDOM_FLIP holds; without it Detectron2's own list applies.
    """
    size = cfg.INPUT.SQUARE_SIZE
    if size == 0:
        return build_augmentation(cfg, is_train)
    if not is_train:
        return [T.Resize(size)]
    flips, how = [], cfg.INPUT.RANDOM_FLIP
    if how != "none":
        flips = [T.RandomFlip(horizontal=how == "horizontal", vertical=how == "vertical")]
    if not cfg.INPUT.SSD_AUGMENTATION:
        return [*flips, T.Resize(size)]
    return [
        RandomShrink(size),
        ColorAugSSDTransform(img_format=cfg.INPUT.FORMAT),
        RandomPlace(size, cfg.MODEL.PIXEL_MEAN),
        *flips,
    ]
