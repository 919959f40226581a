import numpy as np

from mutual_guidance.data.records import FoundObject, Record, pack_objects
from mutual_guidance.evaluation.detections import Detections
from mutual_guidance.evaluation.ground_truth import ground_truths
from mutual_guidance.evaluation.matching import match
from mutual_guidance.visualization.detections import draw_comparison


def detection(box):
    return Detections(np.array([box], float), np.array([0.9]), np.array([0]))


def test_drawn_colours(tmp_path):
    objects, _ = pack_objects([FoundObject([10, 10, 40, 40], 0, 1)], 100, 100, "")
    gts = ground_truths(Record("", 0, 100, 100, objects))
    found, wrong = (match(detection(b), gts) for b in ([10, 10, 40, 40], [50, 50, 90, 90]))
    image = np.zeros((100, 100, 3), np.uint8)
    models = {"a $x^{": found, "b": wrong}  # no mathematics
    figure = draw_comparison(image, gts, models, ["<script>"])
    colours = [[p.get_edgecolor()[:3] for p in axes.patches] for axes in figure.axes]
    assert [len(c) for c in colours] == [1, 2, 2]  # the ground truth, and a detection
    green, red = colours[1][1], colours[2][1]
    assert green[1] > green[0] and red[0] > red[1]
    texts = [[t.get_text() for t in axes.texts] for axes in figure.axes]
    assert texts == [["<script>"], ["0.90, IoU 1.00"], ["<script> 0.90, IoU 0.00"]]
    assert figure.axes[1].get_title() == "a $x^{: 1 of 1 found, 0 false"
    figure.savefig(tmp_path / "drawn.png")


def test_a_large_image_is_drawn_small_with_its_boxes_in_place():
    objects, _ = pack_objects([FoundObject([10, 10, 3000, 40], 0, 1)], 4000, 60, "")
    gts = ground_truths(Record("", 0, 60, 4000, objects))
    figure = draw_comparison(np.zeros((60, 4000, 3), np.uint8), gts, {}, ["a"])
    (picture,) = figure.axes[0].images
    assert picture.get_array().shape[1] == 2048 and picture.get_extent() == [0, 4000, 60, 0]
    assert figure.axes[0].patches[0].get_bbox().bounds == (10, 10, 2990, 30)


def test_the_figure_of_a_line_of_pixels_is_bounded():
    objects, _ = pack_objects([FoundObject([0, 10, 1, 140], 0, 1)], 1, 2000, "")
    gts = ground_truths(Record("", 0, 1, 2000, objects))
    figure = draw_comparison(np.zeros((2000, 1, 3), np.uint8), gts, {}, ["a"])
    assert figure.get_figheight() < 15  # inches


def test_a_crowd_is_grey():
    found = [FoundObject([10, 10, 40, 40], 0, 1), FoundObject([50, 50, 90, 90], 0, 2, crowd=True)]
    objects, _ = pack_objects(found, 100, 100, "")
    gts = ground_truths(Record("", 0, 100, 100, objects))
    inside_it = match(detection([52, 52, 80, 80]), gts)
    figure = draw_comparison(np.zeros((100, 100, 3), np.uint8), gts, {"a": inside_it}, ["cat"])
    colours = [[p.get_edgecolor()[:3] for p in axes.patches] for axes in figure.axes]
    assert len(set(colours[0])) == 2  # the object white
    assert colours[1] == [*colours[0], colours[0][1]]
    assert figure.axes[1].get_title() == "a: 0 of 1 found, 0 false"
