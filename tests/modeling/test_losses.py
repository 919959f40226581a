import math

import pytest
import torch
from detectron2.layers import ciou_loss, diou_loss
from fvcore.nn import giou_loss, sigmoid_focal_loss
from torch.nn import functional as F

from benchmarks.losses import peak_bytes
from mutual_guidance.modeling import losses
from mutual_guidance.modeling.losses import (
    balanced_l1_loss,
    focal_loss,
    iou_loss,
    quality_focal_loss,
)
from tests.pretend_gpu import DEVICE

# alpha = 0.5 and gamma = 1.5 give b = e^3 - 1 = 19.0855.


def test_exact_values():
    # At x = beta = 1 both branches are gamma + gamma / b - alpha:
    #   1.5 + 1.5 / 19.0855 - 0.5 = 1.078594
    # At x = 2 the loss is one gamma more: 2.578594.
    # At x = 0.5 with u = b * 0.5 + 1 = 10.542769:
    #   0.5 / b * u * ln(u) - 0.5 * 0.5 = 0.026198 * 10.542769 * 2.355440 - 0.25 = 0.400566
    loss = balanced_l1_loss(
        torch.tensor([0.0, 1.0, -2.0, 0.5]), torch.zeros(4), alpha=0.5, gamma=1.5, beta=1.0
    )
    assert loss.tolist() == pytest.approx([0.0, 1.078594, 2.578594, 0.400566], abs=1e-5)


@pytest.mark.parametrize("beta", [0.11, 1.0])
def test_continuous_with_continuous_derivative_at_beta(beta):
    x = torch.tensor([beta - 1e-9, beta + 1e-9], dtype=torch.float64, requires_grad=True)
    loss = balanced_l1_loss(x, torch.zeros_like(x), beta=beta)
    (grad,) = torch.autograd.grad(loss.sum(), x)
    assert loss[0].item() == pytest.approx(loss[1].item(), abs=1e-6)
    assert grad.tolist() == pytest.approx([1.5, 1.5], abs=1e-6)  # gamma on both sides


def test_gradient_is_alpha_log_and_finite_at_zero():
    x = torch.tensor([0.0, 0.05, -0.05, 100.0], dtype=torch.float64, requires_grad=True)
    balanced_l1_loss(x, torch.zeros_like(x)).sum().backward()
    b = math.exp(3) - 1
    inner = 0.5 * math.log(b * 0.05 / 0.11 + 1)  # Eq. (8) of Libra R-CNN, x scaled by beta
    assert x.grad.tolist() == pytest.approx([0.0, inner, -inner, 1.5])


def test_quality_focal_loss_by_hand():
    # Scores 0.5 everywhere: cross entropy ln 2 whatever the target, times |target - 0.5| ** 2.
    logits = torch.zeros(1, 3, 2)
    labels = torch.tensor([[1, 2, -1]])  # of class 1, background, ignored
    targets = torch.tensor([[0.9, 0.0, 0.0]])
    # The positive has 0.4 ** 2 and 0.5 ** 2, background twice 0.5 ** 2.
    expected = math.log(2) * (0.16 + 3 * 0.25)
    loss = quality_focal_loss(logits, labels, targets, gamma=2.0)
    assert loss.item() == pytest.approx(expected)


def test_quality_focal_loss_is_least_at_its_target():
    logits = torch.tensor([[[0.3, -1.0]]], requires_grad=True)
    targets = logits.detach().sigmoid()[..., 0]
    quality_focal_loss(logits, torch.tensor([[0]]), targets, gamma=2.0).backward()
    assert logits.grad[0, 0, 0] == 0 and logits.grad[0, 0, 1] > 0


def fvcore_focal_loss(logits, labels, alpha, gamma):
    """With a tensor of targets, and boolean indexing."""
    valid = labels >= 0
    targets = F.one_hot(labels[valid], logits.shape[-1] + 1)[:, :-1].to(logits.dtype)
    return sigmoid_focal_loss(logits[valid], targets, alpha=alpha, gamma=gamma, reduction="sum")


def with_gradient(loss, logits, *args):
    logits = logits.detach().clone().requires_grad_()
    value = loss(logits, *args)
    (value / 7).backward()
    return value.detach(), logits.grad


def focal_batch(num_images=2, num_anchors=300, num_classes=5):
    """Logits as of a detector, every label, and mostly background."""
    logits = torch.randn(num_images, num_anchors, num_classes) * 3 - 2
    labels = torch.randint(-1, num_classes + 1, (num_images, num_anchors))
    labels[torch.rand(labels.shape) < 0.7] = num_classes
    return logits, labels


def test_focal_loss_by_hand():
    logits = torch.tensor([[0.0, 0.0], [5.0, 5.0], [0.0, 0.0]])
    labels = torch.tensor([0, -1, 2])  # a class, ignored, background of 2 classes
    # Logit 0: ln 2 * 0.5 ** 2, weighted 0.25 for the label's class and 0.75 for the others.
    unit = 0.25 * math.log(2)
    expected = unit * (0.25 + 0.75 + 0.75 + 0.75)
    assert focal_loss(logits, labels, 0.25, 2.0).item() == pytest.approx(expected)


@pytest.mark.parametrize("block", [1, 700, 2**20])
@pytest.mark.parametrize("alpha, gamma", [(0.25, 2.0), (0.5, 0.0), (-1.0, 1.5)])
def test_focal_loss_is_fvcores(monkeypatch, alpha, gamma, block):
    monkeypatch.setitem(losses._FOCAL_BLOCK, "cpu", block)
    logits, labels = focal_batch()
    expected, grad = with_gradient(fvcore_focal_loss, logits.double(), labels, alpha, gamma)
    got, got_grad = with_gradient(focal_loss, logits, labels, alpha, gamma)
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(got_grad, grad.float(), rtol=2e-6, atol=1e-9)
    assert got_grad[labels == -1].count_nonzero() == 0


def test_focal_loss_of_extreme_logits():
    logits = torch.tensor([[-200.0, 200.0, -40.0, 40.0]] * 2)
    labels = torch.tensor([4, 1])
    expected, grad = with_gradient(fvcore_focal_loss, logits, labels, 0.25, 2.0)
    got, got_grad = with_gradient(focal_loss, logits, labels, 0.25, 2.0)
    assert got.item() == pytest.approx(expected.item())
    torch.testing.assert_close(got_grad, grad)


@pytest.mark.parametrize("num_images, num_anchors", [(2, 0), (0, 5)])
def test_focal_loss_of_nothing(num_images, num_anchors):
    value, grad = with_gradient(focal_loss, *focal_batch(num_images, num_anchors))
    assert value == 0 and grad.shape == (num_images, num_anchors, 5)


def test_focal_loss_of_halves_is_a_float():
    logits, labels = focal_batch()
    half = logits.bfloat16()
    value, grad = with_gradient(focal_loss, half, labels)
    expected, _ = with_gradient(focal_loss, half.float(), labels)
    assert value.dtype == torch.float32 and value == expected and grad.dtype == torch.bfloat16


def test_focal_loss_takes_little_memory(monkeypatch):
    monkeypatch.setitem(losses._FOCAL_BLOCK, "cpu", 2**14)
    logits, labels = focal_batch(2, 5000, 80)
    logits.requires_grad_()
    size = logits.numel() * logits.element_size()
    # Its gradient, which is kept, and the one that is handed on.
    assert peak_bytes(lambda: focal_loss(logits, labels).backward()) < 2.2 * size
    assert peak_bytes(lambda: fvcore_focal_loss(logits, labels, 0.25, 2.0).backward()) > 8 * size


def boxes_in_pairs(number=200):
    """Some that overlap, some that do not, and some alike."""
    corners, sizes = torch.rand(2, number, 2) * 60, torch.rand(2, number, 2) * 50 + 1
    boxes, targets = torch.cat((corners, corners + sizes), dim=2)
    return boxes, torch.cat((targets[:-10], boxes[-10:]))


@pytest.mark.parametrize(
    "kind, known", [("giou", giou_loss), ("diou", diou_loss), ("ciou", ciou_loss)]
)
def test_iou_losses_are_the_known_ones(kind, known):
    boxes, targets = boxes_in_pairs()
    got, grad = with_gradient(lambda x: iou_loss(x, targets, kind).sum(), boxes)
    expected, known_grad = with_gradient(lambda x: known(x, targets).sum(), boxes)
    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(grad, known_grad, rtol=1e-5, atol=1e-6)
    if kind == "giou":
        assert torch.equal(iou_loss(boxes, targets), giou_loss(boxes, targets))


def test_iou_loss_of_another_kind():
    with pytest.raises(ValueError, match="kind must be giou, diou or ciou, got 'iou'"):
        iou_loss(*boxes_in_pairs(), "iou")


def test_losses_never_wait(gpu):
    logits, labels = (x.to(DEVICE) for x in focal_batch())
    boxes, targets = (x.to(DEVICE) for x in boxes_in_pairs())
    gpu.reset()
    with_gradient(focal_loss, logits, labels)
    for kind in ("giou", "diou", "ciou"):
        with_gradient(lambda x, kind=kind: iou_loss(x, targets, kind).sum(), boxes)
    with_gradient(lambda x: balanced_l1_loss(x, targets).sum(), boxes)
    assert gpu.waits == []
