"""Detectors with random weights and an image to draw."""

import numpy as np
import torch
from detectron2.modeling import build_model

from mutual_guidance.config import load_config
from mutual_guidance.visualization import GroundTruthImage
from tests.conftest import REPOSITORY, make_instances

SIDE = 128
CONFIGS = {
    "anchors": "configs/Shapes/retinanet_R_18.yaml",
    "points": "configs/PascalVOC-Detection/fcos_R_18.yaml",
}


def build(kind):
    """A detector in training mode whose predictions differ from place to place."""
    cfg = load_config(str(REPOSITORY / CONFIGS[kind]), ["MODEL.DEVICE", "cpu"])
    detector = build_model(cfg)
    for layer in (*detector.head.cls_score, *detector.head.bbox_pred):
        torch.nn.init.normal_(layer.weight, std=8.0)
    return detector.train()


def grey_image():
    """128 grey pixels a side with two objects."""
    pixels = np.full((SIDE, SIDE, 3), 100, np.uint8)
    instances = make_instances([[16, 16, 56, 64], [60, 50, 120, 110]], [0, 1])
    inputs = {"image": torch.rand(3, SIDE, SIDE) * 255, "instances": instances}
    return GroundTruthImage("grey", pixels, inputs)
