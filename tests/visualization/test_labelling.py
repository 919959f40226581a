import copy

import pytest
import torch

from mutual_guidance.errors import CheckpointError, InputError
from mutual_guidance.visualization import load_weights
from mutual_guidance.visualization.labelling import predict

from .scenes import build, grey_image


@pytest.mark.parametrize("kind", ["anchors", "points"])
def test_predicting_leaves_no_trace(kind):
    detector, image = build(kind), grey_image()
    before = copy.deepcopy(detector.state_dict())
    dense = predict(detector, [image.inputs])
    assert all(m.training for m in detector.modules())
    assert all(torch.equal(before[k], v) for k, v in detector.state_dict().items())
    assert not dense.logits.requires_grad


def test_predictions_are_those_of_inference():
    detector, image = build("anchors"), grey_image()
    best = predict(detector, [image.inputs]).logits.sigmoid().amax()
    with torch.no_grad():
        (output,) = detector.eval()([image.inputs])
    torch.testing.assert_close(output["instances"].scores[0], best)


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


def test_a_detector_without_labels_is_refused(tmp_path):
    with pytest.raises(InputError, match="a Linear has no labels of its own to draw"):
        load_weights(torch.nn.Linear(1, 1), tmp_path / "any.pth")
