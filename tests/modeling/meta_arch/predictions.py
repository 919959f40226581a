"""Predictions of a detector that come from no image."""

import torch


def make_dense(model, num_images=1, side=128, scale=0.0):
    """Normally distributed logits, deltas and centerness at the candidates of square images."""
    shapes = [model.backbone.output_shape()[f] for f in model.head_in_features]
    sizes = [side // shape.stride for shape in shapes]
    features = [torch.zeros(num_images, 1, s, s) for s in sizes]
    num_anchors = model.anchor_generator.num_anchors[0]
    dims = (model.num_classes, 4, *([1] if model.candidate_kind == "points" else []))
    predictions = [
        [torch.randn(num_images, num_anchors * d, s, s) * scale for s in sizes] for d in dims
    ]
    return model.dense(features, predictions)
