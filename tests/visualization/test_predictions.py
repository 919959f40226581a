import numpy as np
import pytest
from detectron2.data import Metadata

from mutual_guidance.visualization.predictions import MAX_SIDE, bounded, draw_predictions, scaled
from tests.conftest import predicted


@pytest.fixture
def found():
    """A box in an image of 6000x3000 pixels."""
    return predicted([[600, 300, 5400, 2700]], [0.9], [0], (3000, 6000))


def test_large_images_are_drawn_small(found):
    drawn = draw_predictions(
        np.zeros((3000, 6000, 3), np.uint8), found, Metadata().set(thing_classes=["cat"])
    )
    assert drawn.size == (MAX_SIDE, MAX_SIDE // 2)
    lit = np.argwhere(np.asarray(drawn).max(axis=2) > 60)
    # The box is a tenth of the image away from its sides; its label may stand beside it.
    assert lit.max(axis=0) / drawn.size[::-1] == pytest.approx([0.9, 0.9], abs=0.01)
    assert lit[:, 1].min() / drawn.width == pytest.approx(0.1, abs=0.01)


def test_names_of_classes_are_no_mathematics(found):
    metadata = Metadata().set(thing_classes=["cost$_$1"])
    assert draw_predictions(np.zeros((30, 60, 3), np.uint8), found, metadata).size == (60, 30)


def test_small_images_stay_as_they_are():
    pixels = np.zeros((MAX_SIDE, 3, 3), np.uint8)
    assert bounded(pixels) is pixels
    assert bounded(np.zeros((4 * MAX_SIDE, 1, 3), np.uint8)).shape == (MAX_SIDE, 1, 3)


def test_scaled_boxes_by_hand(found):
    of_copy = scaled(found, np.zeros((30, 120, 3), np.uint8))
    assert of_copy.image_size == (30, 120)
    # Widths by 120 / 6000, heights by 30 / 3000.
    assert of_copy.pred_boxes.tensor.tolist() == [[12.0, 3.0, 108.0, 27.0]]
    assert found.pred_boxes.tensor.tolist() == [[600.0, 300.0, 5400.0, 2700.0]]
