import copy

import pytest
import torch
from detectron2.structures import Boxes

from mutual_guidance.assignment import STRATEGIES
from mutual_guidance.errors import CheckpointError
from mutual_guidance.visualization import load_weights
from mutual_guidance.visualization.candidates import evaluation_mode, label, predict

from .scenes import build, grey_image


def test_evaluation_mode_gives_every_module_its_own_mode_back():
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Dropout())
    model[0].eval()  # as a frozen layer of a model in training
    with pytest.raises(RuntimeError), evaluation_mode(model):
        assert not model[1].training
        raise RuntimeError
    assert [m.training for m in model.modules()] == [True, False, True]


@pytest.mark.parametrize("kind", ["anchors", "points"])
def test_predicting_leaves_no_trace(kind):
    detector, image = build(kind), grey_image()
    before = copy.deepcopy(detector.state_dict())
    candidates = predict(detector, [image.inputs])
    assert all(m.training for m in detector.modules())
    assert all(torch.equal(before[k], v) for k, v in detector.state_dict().items())
    assert not candidates.pred_logits.requires_grad
    num_anchors = len(Boxes.cat(candidates.anchors))
    assert candidates.pred_logits.shape == (1, num_anchors, detector.num_classes)
    assert candidates.pred_deltas.shape == (1, num_anchors, 4)
    assert candidates.are_points == (kind == "points")


def test_predictions_are_those_of_inference():
    detector, image = build("anchors"), grey_image()
    best = predict(detector, [image.inputs]).pred_logits.sigmoid().amax()
    with torch.no_grad():
        (output,) = detector.eval()([image.inputs])
    torch.testing.assert_close(output["instances"].scores[0], best)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["anchors", "points"])
def test_label_equals_a_detector_of_that_strategy(kind, strategy):
    detector, image = build(kind), grey_image()
    candidates = predict(detector, [image.inputs])
    got = label(detector, [image.inputs], candidates, strategy)
    name = "point_matcher" if kind == "points" else "anchor_matcher"
    setattr(detector, name, getattr(detector, name).with_strategy(strategy))
    expected = detector.label_anchors(
        candidates.anchors,
        [image.inputs["instances"]],
        candidates.pred_logits,
        candidates.pred_deltas,
    )
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_weights(tmp_path):
    detector = build("anchors")
    model = {"model": detector.state_dict()}
    torch.save({**model, "iteration": 39}, tmp_path / "periodic.pth")
    torch.save({**model, "trainer": {"iteration": 41}}, tmp_path / "stopped.pth")
    torch.save(model, tmp_path / "bare.pth")
    torch.save({"model": {"other": torch.zeros(1)}}, tmp_path / "other.pth")
    (tmp_path / "torn.pth").write_bytes((tmp_path / "bare.pth").read_bytes()[:1000])
    for name, iteration in (("periodic", 39), ("stopped", 41), ("bare", 0)):
        assert load_weights(detector, tmp_path / f"{name}.pth") == iteration
    for name, message in (
        ("missing", "there is no such file"),
        ("torn", "holds no weights"),
        ("other", "another architecture"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_weights(detector, tmp_path / f"{name}.pth")
