import pytest
import torch
from detectron2.structures import Boxes, pairwise_iou

from mutual_guidance.errors import InputError
from mutual_guidance.visualization import candidate_rows
from mutual_guidance.visualization.labelling import label, predict

from .scenes import build, grey_image


@pytest.mark.parametrize("kind", ["anchors", "points"])
def test_rows_are_consistent(kind):
    detector, image = build(kind), grey_image()
    rows = candidate_rows(detector, image, 1, limit=13)
    assert len(rows) == 13
    assert [r.prior for r in rows] == sorted((r.prior for r in rows), reverse=True)
    for row in rows:
        # Eq. (1) with sigma 2.
        assert row.amplified == pytest.approx(row.prior ** ((2 - row.score) / 2), abs=1e-5)
        assert 0 <= row.regressed <= 1
        assert row.classify_to_localize in ("positive", "negative")
        if kind == "anchors":
            gt_box = image.inputs["instances"].gt_boxes[1]
            iou = pairwise_iou(Boxes(torch.tensor([row.box])), gt_box)
            assert row.prior == pytest.approx(iou.item(), abs=1e-5)
            # No anchor below 0.4 is ignored or positive by the static rule, none above negative.
            assert (row.static == "negative") == (row.prior < 0.4)


@pytest.mark.parametrize("kind", ["anchors", "points"])
def test_labels_equal_the_matchers(kind):
    detector, image = build(kind), grey_image()
    dense = predict(detector, [image.inputs])
    num_anchors = dense.logits.shape[1]
    rows = candidate_rows(detector, image, 0, limit=num_anchors)
    assert len(rows) == num_anchors
    for strategy, inds in (
        ("static", "cls_gt_inds"),
        ("localize_to_classify", "cls_gt_inds"),
        ("classify_to_localize", "loc_gt_inds"),
    ):
        assignment = label(detector, [image.inputs], dense, strategy)
        boxes = Boxes.cat(dense.anchors).tensor[getattr(assignment, inds)[0] == 0]
        positive = [row.box for row in rows if getattr(row, strategy) == "positive"]
        assert sorted(positive) == sorted(boxes.tolist()) != []


def test_rows_on_which_the_strategies_differ_come_first():
    detector, image = build("anchors"), grey_image()

    def differing(rows):
        labels = [(r.static, r.localize_to_classify, r.classify_to_localize) for r in rows]
        return sum(row.count("positive") in (1, 2) for row in labels)

    total = differing(candidate_rows(detector, image, 0, 10_000))
    assert total > 1
    assert differing(candidate_rows(detector, image, 0, total)) == total


def test_an_object_that_is_not_there():
    with pytest.raises(InputError, match="image grey has the objects 0 to 1"):
        candidate_rows(build("anchors"), grey_image(), 2, 13)
