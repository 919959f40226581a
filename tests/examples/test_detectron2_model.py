import ast
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.meta_arch import RetinaNet

from mutual_guidance.assignment import STRATEGIES, AnchorMatcher
from mutual_guidance.engine.checks import check_detector
from tests.conftest import load_script, make_instances


@pytest.fixture(scope="module")
def example():
    return load_script("examples/detectron2_model.py")


@pytest.fixture(scope="module")
def model(example):
    torch.manual_seed(0)
    return build_model(example.config()).train()


def batch():
    boxes = [[10, 10, 70, 90], [50, 40, 120, 81]]
    return [
        {"image": torch.rand(3, 128, 128) * 255, "instances": make_instances(boxes, [3, 7])},
        {"image": torch.rand(3, 128, 128) * 255, "instances": make_instances([], [])},
    ]


def test_the_class_has_some_20_lines(example):
    source = Path(example.__file__).read_text()
    (own,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    lines = source.splitlines()[own.lineno - 1 : own.end_lineno]
    assert len([line for line in lines if not line.lstrip().startswith("#")]) <= 23


def test_the_engine_takes_it_with_the_strategy_of_the_config(example):
    cfg = example.config()
    check_detector(cfg)
    cfg.MODEL.MUTUAL_GUIDANCE.STRATEGY = "static"
    assert example.OwnRetinaNet.build_matcher(cfg).strategy == STRATEGIES["static"]


def test_the_script_prints_its_losses(example, capsys):
    example.main()
    assert "loss_cls" in capsys.readouterr().out


def test_both_tasks_are_trained(model, storage):
    losses = model(batch())
    assert all(loss.item() > 0 for loss in losses.values())
    sum(losses.values()).backward()
    for layer in (model.head.cls_score, model.head.bbox_pred):
        assert layer.weight.grad.isfinite().all() and layer.weight.grad.abs().sum() > 0


def test_static_labels_give_detectron2s_own_losses(example, model, storage, monkeypatch):
    monkeypatch.setattr(model, "matcher", AnchorMatcher("static"))
    model.loss_normalizer, model.smooth_l1_beta = 100, 0.1
    inputs = batch()
    ours = model(inputs)
    positives = storage.latest()["num_positives/localisation"][0] * len(inputs)
    monkeypatch.setattr(example.OwnRetinaNet, "forward_training", RetinaNet.forward_training)
    own = model(inputs)
    # Detectron2 divides by a moving average of their number.
    for name, loss in own.items():
        expected = loss.item() * model.loss_normalizer / positives
        assert ours[name].item() == pytest.approx(expected, rel=1e-5)
