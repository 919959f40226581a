import pytest

from mutual_guidance.visualization.report.curves import is_drawn, meaning

EXPLAINED = {
    "total_loss": ("Losses", "Sum of all losses."),
    "lr": ("Losses", "Learning rate: the warm-up, then the schedule."),
    "bbox/AP": ("Test set", "Average precision, the mean over IoUs from 0.5 to 0.95, in %."),
    "my-val/bbox/AP50": ("Test set", "Average precision at an IoU threshold of 0.50, in %."),
    "ema/bbox/AP75": ("Test set", "AP75 of the moving average of the weights (EMA), in %."),
    "assignment/cls_as_static": (
        "Labels",
        "Of the positives for classification by the strategy or by static, the share that is so "
        "by both.",
    ),
    "assignment/loc_positives_per_object_small": (
        "Labels",
        "Positives of a small object for localisation.",
    ),
    "val/misalignment/iou_lost_before": (
        "Misalignment",
        "IoU lost to misalignment, before NMS.",
    ),
    "loss_fcos_loc": ("Losses", "Loss of the boxes, for each positive."),
    "bbox/AP50@300": (
        "Test set",
        "The same with the best 300 detections of a class in an image instead of 100.",
    ),
    "mystery": ("Others", ""),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_each_curve_has_its_line(name):
    assert is_drawn(name) and meaning(name) == EXPLAINED[name]


@pytest.mark.parametrize("name", ["time", "rank_data_time", "bbox/AP-ring", "ema/bbox/AP-ring"])
def test_what_is_no_curve(name):
    assert not is_drawn(name)
