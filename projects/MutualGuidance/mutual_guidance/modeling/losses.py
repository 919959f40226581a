"""Losses that Detectron2 and fvcore do not have."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def balanced_l1_loss(
    input: Tensor,
    target: Tensor,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 0.11,
    reduction: str = "none",
) -> Tensor:
    """
    Balanced L1 loss of Libra R-CNN (Pang et al., CVPR 2019, Sec. 3.3), with x = |input - target|:

        alpha / b * (b * x / beta + 1) * log(b * x / beta + 1) * beta - alpha * x    if x < beta
        gamma * x + C                                                                otherwise

    where alpha * log(b + 1) = gamma makes the derivative continuous and C the loss itself.

    Args:
        input, target: of one shape.
        alpha: weight of the gradient of small errors. gamma: the gradient of large ones.
        beta: error at which they meet.
        reduction: "none", "sum" or "mean" (0 for an empty input).

    Returns:
        The loss, of the shape of ``input`` or a scalar.
    """
    error = (input - target).abs()
    b = math.exp(gamma / alpha) - 1
    scaled = b * error.clamp(max=beta) / beta  # the clamp keeps the logarithm's branch finite
    small = alpha * beta / b * (scaled + 1) * torch.log1p(scaled) - alpha * error
    large = gamma * error + gamma * beta / b - alpha * beta
    loss = torch.where(error < beta, small, large)
    if reduction == "mean":
        return loss.mean() if loss.numel() > 0 else loss.sum()
    if reduction == "sum":
        return loss.sum()
    if reduction == "none":
        return loss
    raise ValueError(f"reduction must be none, sum or mean, got {reduction!r}")


def quality_focal_loss(
    pred_logits: Tensor, cls_labels: Tensor, targets: Tensor, gamma: float
) -> Tensor:
    """
    Quality focal loss of Generalized Focal Loss (Li et al., NeurIPS 2020, Eq. 2), summed over all
    anchors that are not ignored: the cross entropy of score and target, times |target - score| to
    the power of gamma, beta there.

    Args:
        pred_logits: (N, R, K).
        cls_labels: (N, R) int64: a class, K for background, -1 for ignored.
        targets: (N, R) in [0, 1] for the class of a positive, 0 for all others.
    """
    logits = pred_logits.float()
    classes = cls_labels.clamp(min=0, max=logits.shape[2] - 1)[..., None]
    all_targets = torch.zeros_like(logits).scatter_(2, classes, targets[..., None])
    error = (all_targets - logits.sigmoid()).abs()
    entropy = F.binary_cross_entropy_with_logits(logits, all_targets, reduction="none")
    return (entropy * error**gamma).sum(dim=2).mul(cls_labels >= 0).sum()
