"""
Losses that Detectron2 and fvcore do not have, or have at the price of a device that is waited for
(theirs check boxes and select by masks) or of many tensors of the size of the logits.

Shape symbols: R anchors or points, K classes.
"""

import math

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Logits that the focal loss takes at a time: few enough for a CPU's cache, many enough for a GPU.
_FOCAL_BLOCK = {"cpu": 2**17, "cuda": 2**23}


def focal_loss(
    pred_logits: Tensor, cls_labels: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """
    Sum of the sigmoid focal loss (https://arxiv.org/abs/1708.02002) over all anchors that are not
    ignored, in float32, as of :func:`fvcore.nn.sigmoid_focal_loss`.

    No tensor of targets is made, and the gradient with the loss, so that all temporaries together
    are about twice as large as the logits in float32.

    Args:
        pred_logits: (..., R, K).
        cls_labels: (..., R) int64: a class, K for background, -1 for ignored.
        alpha: weight of an anchor's class; other classes have 1 - alpha. Below 0 both have 1.
        gamma: at least 0; the larger, the less count easy anchors.
    """
    return _FocalLoss.apply(pred_logits.flatten(0, -2), cls_labels.flatten(), alpha, gamma)


class _FocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
        weights = (alpha, 1 - alpha) if alpha >= 0 else (1.0, 1.0)
        grad = torch.empty_like(logits, dtype=torch.float32)
        num_rows = max(1, _FOCAL_BLOCK.get(logits.device.type, 2**23) // max(logits.shape[1], 1))
        total = logits.new_zeros((), dtype=torch.float32)
        blocks = (logits.split(num_rows), labels.split(num_rows), grad.split(num_rows))
        for block, block_labels, block_grad in zip(*blocks, strict=True):
            total += _focal_block(block.float(), block_labels, weights, gamma, block_grad)
        ctx.save_for_backward(grad)
        ctx.dtype = logits.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (grad,) = ctx.saved_tensors
        return (grad * grad_output).to(ctx.dtype), None, None, None


def _focal_block(
    logits: Tensor, labels: Tensor, weights: tuple[float, float], gamma: float, grad: Tensor
) -> Tensor:
    """The loss of logits (r, K) with labels (r,); its gradient is written to ``grad`` (r, K)."""
    loss, gradient = _background_focal(logits, gamma)
    loss, gradient = loss.mul_(weights[1]), torch.mul(gradient, weights[1], out=grad)
    is_object = ((labels >= 0) & (labels < logits.shape[1]))[:, None]
    column = labels.clamp(0, logits.shape[1] - 1)[:, None]
    # Of an object's class the loss is that of background at the opposite logit.
    object_loss, object_grad = _background_focal(-logits.gather(1, column), gamma)
    for whole, of_object in ((loss, object_loss), (gradient, -object_grad)):
        own = whole.gather(1, column)
        whole.scatter_(1, column, torch.where(is_object, of_object * weights[0], own))
    ignored = (labels < 0)[:, None]
    gradient.masked_fill_(ignored, 0)
    return loss.masked_fill_(ignored, 0).sum()


def _background_focal(logits: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Focal loss p ** gamma * -log(1 - p), p the sigmoid of a logit, and its derivative."""
    p = logits.sigmoid()
    entropy = F.softplus(logits)
    modulation = p**gamma
    derivative = (1 - p).mul_(gamma).mul_(entropy).add_(p).mul_(modulation)
    return entropy.mul_(modulation), derivative


def iou_loss(boxes: Tensor, targets: Tensor, kind: str = "giou", eps: float = 1e-7) -> Tensor:
    """
    Generalised, distance or complete IoU loss of corresponding boxes, as of
    :func:`fvcore.nn.giou_loss`, :func:`detectron2.layers.diou_loss` and ``ciou_loss``.

    Args:
        boxes, targets: (..., 4), XYXY.
        kind: "giou" (https://arxiv.org/abs/1902.09630), "diou" or "ciou"
            (https://arxiv.org/abs/1911.08287).
        eps: keeps divisors above 0.

    Returns:
        (...), in [0, 2] for "giou" and "diou".
    """
    x0, y0, x1, y1 = boxes.unbind(-1)
    u0, v0, u1, v1 = targets.unbind(-1)
    width = (torch.minimum(x1, u1) - torch.maximum(x0, u0)).clamp(min=0)
    height = (torch.minimum(y1, v1) - torch.maximum(y0, v0)).clamp(min=0)
    intersection = width * height
    union = (x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - intersection
    iou = intersection / (union + eps)
    # The smallest box around both.
    width = torch.maximum(x1, u1) - torch.minimum(x0, u0)
    height = torch.maximum(y1, v1) - torch.minimum(y0, v0)
    if kind == "giou":
        area = width * height
        return 1 - (iou - (area - union) / (area + eps))
    distance = ((x0 + x1 - u0 - u1) / 2) ** 2 + ((y0 + y1 - v0 - v1) / 2) ** 2
    loss = 1 - iou + distance / (width**2 + height**2 + eps)
    if kind == "diou":
        return loss
    if kind == "ciou":
        angles = torch.atan((u1 - u0) / (v1 - v0)) - torch.atan((x1 - x0) / (y1 - y0))
        shape = 4 / math.pi**2 * angles**2
        return loss + (shape / (1 - iou + shape + eps)).detach() * shape
    raise ValueError(f"kind must be giou, diou or ciou, got {kind!r}")


def balanced_l1_loss(
    input: Tensor,
    target: Tensor,
    alpha: float = 0.5,
    gamma: float = 1.5,
    beta: float = 0.11,
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

    Returns:
        The loss, of the shape of ``input``.
    """
    error = (input - target).abs()
    b = math.exp(gamma / alpha) - 1
    scaled = b * error.clamp(max=beta) / beta  # the clamp keeps the logarithm's branch finite
    small = alpha * beta / b * (scaled + 1) * torch.log1p(scaled) - alpha * error
    large = gamma * error + gamma * beta / b - alpha * beta
    return torch.where(error < beta, small, large)


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
