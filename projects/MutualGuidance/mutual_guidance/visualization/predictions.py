"""An image with the boxes that were found in it, drawn by Detectron2 at a bounded size."""

import cv2
import matplotlib
import numpy as np
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import Visualizer
from PIL import Image

from ..figures import PLAIN_TEXT

# Pixels of the longer side. Detectron2 draws through Matplotlib, with some 100 bytes a pixel.
MAX_SIDE = 2048


def bounded(pixels: np.ndarray) -> np.ndarray:
    """The image (H, W, 3), shrunk where it is too large to be drawn."""
    scale = MAX_SIDE / max(pixels.shape[:2])
    if scale >= 1:
        return pixels
    height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def scaled(instances: Instances, pixels: np.ndarray) -> Instances:
    """The detections of an image in pixels of its copy (H, W, 3) of another size."""
    height, width = instances.image_size
    boxes = Boxes(instances.pred_boxes.tensor.clone())
    boxes.scale(pixels.shape[1] / width, pixels.shape[0] / height)
    return Instances(
        pixels.shape[:2],
        pred_boxes=boxes,
        scores=instances.scores,
        pred_classes=instances.pred_classes,
    )


def draw_predictions(pixels: np.ndarray, instances: Instances, metadata: Metadata) -> Image.Image:
    """
    Args:
        pixels: (H, W, 3), uint8, BGR, the image or a smaller copy.
        instances: ``pred_boxes`` in pixels of the image, ``scores`` and ``pred_classes``.
        metadata: with ``thing_classes``.

    Returns:
        The image in RGB, its longer side at most ``MAX_SIDE``.
    """
    pixels = bounded(pixels)
    visualizer = Visualizer(pixels[:, :, ::-1], metadata)
    return Image.fromarray(drawn_by(visualizer, instances, pixels))


@matplotlib.rc_context(PLAIN_TEXT)
def drawn_by(
    visualizer: Visualizer | VideoVisualizer, instances: Instances, pixels: np.ndarray
) -> np.ndarray:
    """The image (H, W, 3), RGB, that one of Detectron2's visualizers makes of ``pixels``, BGR."""
    own = [] if isinstance(visualizer, Visualizer) else [pixels[:, :, ::-1]]
    drawn = visualizer.draw_instance_predictions(*own, scaled(instances, pixels))
    return drawn.get_image()
