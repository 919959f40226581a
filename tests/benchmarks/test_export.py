import pytest
import torch

from benchmarks import export
from mutual_guidance.export import Parity
from tests.conftest import tiny_config, tiny_model


@pytest.mark.parametrize("opts", [(), ("MODEL.MUTUAL_GUIDANCE.HEAD", "shared")])
def test_outputs_are_spread(opts):
    model = tiny_model(tiny_config("fcos_R_18", *opts))
    images = export.random_blobs(64)
    export.spread_outputs(model, images)
    with torch.no_grad():
        features = model.backbone((images - model.pixel_mean) / model.pixel_std)
        outputs = model.head([features[name] for name in model.head_in_features])
    for levels in outputs:  # of a task; a convolution that levels share has 2 in the mean
        assert sum(x.std().item() for x in levels) / len(levels) == pytest.approx(2, rel=0.01)


def test_tables():
    row = {
        "config": "fssd_R_18", "size": 320, "params": 16.3, "MB onnx": 65.0, "MB pt2": 66.0,
        "onnx": Parity(1e-3, 2e-6), "pt2": Parity(), "onnx, NMS": Parity(2e-3, 1e-6, 0.25),
        "s torch 1": 0.2, "s onnx 1": 0.1, "s torch 8": 1.0, "s onnx 8": 1.5,
    }  # fmt: skip
    assert last_row(export.parity_table([row])) == (
        "fssd_R_18 320 1.0e-03 2.0e-06 2.0e-03 1.0e-06 0.0e+00 0.0e+00 2.5e-01"
    )
    assert last_row(export.time_table([row])) == (
        "fssd_R_18 16.3 65.0 66.0 200 100 0.50 1000 1500 1.50"
    )


def last_row(table):
    return " ".join(table.splitlines()[-1].replace("|", " ").split())
