"""From a data set dict to the input of a model, with SSD's random crop."""

import copy

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import CropTransform

from ..errors import DatasetError
from .augmentation import MinIoURandomCrop, build_augmentations
from .images import read_image

# Boxes narrower or lower than this share of the image are dropped after augmentation.
MIN_SIDE = 0.01


def build_mapper(cfg: CfgNode, is_train: bool) -> DatasetMapper:
    """Detectron2's mapper with the config's augmentations, or :class:`SSDMapper` for training."""
    args = {
        "augmentations": build_augmentations(cfg, is_train),
        "image_format": cfg.INPUT.FORMAT,
    }
    if is_train and is_ssds(cfg):
        return SSDMapper(square_size=cfg.INPUT.SQUARE_SIZE, **args)
    return PlainMapper(is_train=is_train, **args)


def is_ssds(cfg: CfgNode) -> bool:
    """Whether a training samples as SSD does."""
    return bool(cfg.INPUT.SQUARE_SIZE and cfg.INPUT.SSD_AUGMENTATION)


class PlainMapper(DatasetMapper):
    """Detectron2's mapper of boxes, with images opened as everywhere in the project."""

    def __call__(self, dataset_dict: dict) -> dict:
        """See :class:`DatasetMapper`; raises DatasetError for an image that cannot be read."""
        dataset_dict = copy.deepcopy(dataset_dict)
        image_input = T.AugInput(read_record(dataset_dict, self.image_format))
        try:
            transforms = self.augmentations(image_input)
        except ValueError as error:  # of a line of pixels nothing may be left
            raise _unusable(dataset_dict, error) from error
        image = image_input.image
        # A copy, since NumPy finds a flipped image of one column contiguous as it is.
        dataset_dict["image"] = torch.as_tensor(np.array(image.transpose(2, 0, 1), order="C"))
        if self.is_train:
            dataset_dict.setdefault("annotations", [])
            self._transform_annotations(dataset_dict, transforms, image.shape[:2])
        else:
            dataset_dict.pop("annotations", None)
        return dataset_dict


class SSDMapper(DatasetMapper):
    """
    Detectron2's training mapper with SSD's sampling (https://arxiv.org/abs/1512.02325, Sec. 2.2):
    a crop with a minimum IoU, in which a box stays if its centre is inside, then the other
    augmentations. Boxes below 1 % of the image's width or height are dropped; where none is left
    the unaugmented image is taken.
    """

    def __init__(self, *, square_size: int, **kwargs) -> None:
        """
        Args:
            square_size: side in pixels of the square that the augmentations end with.
            kwargs: see :class:`DatasetMapper`.
        """
        super().__init__(is_train=True, **kwargs)
        self.crop = MinIoURandomCrop()
        self.fallback = T.AugmentationList([T.Resize(square_size)])

    def __call__(self, dataset_dict: dict) -> dict:
        """See :class:`DatasetMapper`; raises DatasetError for an image that cannot be read."""
        dataset_dict = copy.deepcopy(dataset_dict)
        image = read_record(dataset_dict, self.image_format)
        annotations = dataset_dict.pop("annotations", [])
        annotations = [a for a in annotations if not a.get("iscrowd", 0)]
        boxes = _absolute_boxes(annotations)
        classes = np.array([a["category_id"] for a in annotations], dtype=np.int64)

        augmented, new_boxes, kept = self._augment(image, boxes)
        if len(boxes) and not kept.any():
            augmented, new_boxes = _transform(self.fallback, image, boxes)
            kept = np.ones(len(boxes), dtype=bool)
        size = augmented.shape[:2]
        dataset_dict["image"] = torch.as_tensor(np.ascontiguousarray(augmented.transpose(2, 0, 1)))
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": int(c)}
            for box, c in zip(new_boxes[kept], classes[kept], strict=True)
        ]
        instances = utils.annotations_to_instances(annotations, size)
        dataset_dict["instances"] = utils.filter_empty_instances(instances)
        return dataset_dict

    def _augment(
        self, image: np.ndarray, boxes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, its boxes (M, 4) and which of them stay (M,)."""
        crop = self.crop.get_transform(image, boxes)
        kept = np.ones(len(boxes), dtype=bool)
        # Of an image of a few pixels nothing may be left.
        if isinstance(crop, CropTransform) and min(crop.w, crop.h) > 0:
            kept = _centres_inside(boxes, crop)
            image, boxes = crop.apply_image(image), _clip(crop.apply_box(boxes), crop.h, crop.w)
        image, boxes = _transform(self.augmentations, image, boxes)
        sides = (boxes[:, 2:] - boxes[:, :2]) / (image.shape[1], image.shape[0])
        return image, boxes, kept & (sides >= MIN_SIDE).all(axis=1)


def read_record(dataset_dict: dict, image_format: str) -> np.ndarray:
    """Pixels of an image. Raises DatasetError, with the file, where it is not as it was checked."""
    try:
        image = read_image(dataset_dict["file_name"], image_format)
        utils.check_image_size(dataset_dict, image)
    except ValueError as error:
        raise _unusable(dataset_dict, error) from error
    return image


def _unusable(dataset_dict: dict, error: ValueError) -> DatasetError:
    return DatasetError(f"{dataset_dict['file_name']} cannot be used: {error}")


def _absolute_boxes(annotations: list[dict]) -> np.ndarray:
    """XYXY (M, 4) in pixels."""
    boxes = [
        BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations
    ]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _centres_inside(boxes: np.ndarray, crop: CropTransform) -> np.ndarray:
    """Which boxes (M, 4) have their centre inside the crop."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    low = np.array([crop.x0, crop.y0])
    return ((centres > low) & (centres < low + (crop.w, crop.h))).all(axis=1)


def _clip(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes (M, 4) within the image."""
    return boxes.clip(min=0, max=(width, height, width, height))


def _transform(
    augmentations: T.AugmentationList, image: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Image and boxes (M, 4) after the augmentations, the boxes within the image."""
    transformed = T.AugInput(image, boxes=boxes)
    augmentations(transformed)
    image = transformed.image
    return image, _clip(transformed.boxes, *image.shape[:2])
