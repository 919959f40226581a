import cv2
import numpy as np
import pytest
import torch

from benchmarks import export
from mutual_guidance.errors import InputError
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


def test_images_of_a_folder_are_taken(tmp_path, monkeypatch):
    taken = []
    monkeypatch.setattr(export, "benchmark", lambda path, files, repeats: taken.append(files))
    monkeypatch.setattr(export, "parity_table", lambda rows: "")
    monkeypatch.setattr(export, "time_table", lambda rows: "")
    names = [str(tmp_path / f"{i}.png") for i in range(export.BATCH + 1)]
    for i, name in enumerate(names):
        cv2.imwrite(name, np.full((8, 8, 3), i, dtype=np.uint8))
    export.run([tmp_path / "a.yaml"], [str(tmp_path)], 1)
    assert taken == [names[: export.BATCH]]
    assert export.read_images(names[:2], 4)[:, 0, 0, 0].tolist() == [0, 1]
    with pytest.raises(InputError, match="--images: 2 images, but 8 are needed"):
        export.run([], names[:2], 1)


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
