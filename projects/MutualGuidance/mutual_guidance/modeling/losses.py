"""Losses that Detectron2 and fvcore do not have."""

import math

import torch
from torch import Tensor


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
