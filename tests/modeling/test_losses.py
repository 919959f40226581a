import math

import pytest
import torch

from mutual_guidance.modeling.losses import balanced_l1_loss, quality_focal_loss

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
    balanced_l1_loss(x, torch.zeros_like(x), reduction="sum").backward()
    b = math.exp(3) - 1
    inner = 0.5 * math.log(b * 0.05 / 0.11 + 1)  # Eq. (8) of Libra R-CNN, x scaled by beta
    assert x.grad.tolist() == pytest.approx([0.0, inner, -inner, 1.5])


def test_reductions():
    x, y = torch.tensor([1.0, 2.0]), torch.zeros(2)
    each = balanced_l1_loss(x, y)
    assert balanced_l1_loss(x, y, reduction="sum") == each.sum()
    assert balanced_l1_loss(x, y, reduction="mean") == each.mean()
    assert balanced_l1_loss(x[:0], y[:0], reduction="mean") == 0
    with pytest.raises(ValueError, match="reduction"):
        balanced_l1_loss(x, y, reduction="max")


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
