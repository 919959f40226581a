import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mutual_guidance.engine import Predictor
from mutual_guidance.engine.predictor import files_of_run, inference_config
from tests.conftest import REPOSITORY, load_script, python_of


@pytest.fixture
def export(tiny_run, monkeypatch):
    """Calls the script with the arguments."""
    module = load_script("tools/export.py")

    def call(*args):
        module.main([str(tiny_run), *map(str, args)])

    # It holds on to the stream of the test in which it is first called.
    monkeypatch.setattr(module, "setup_logger", lambda: None)
    call.module = module
    return call


@pytest.fixture
def images(voc):
    """Three images of the data set."""
    for name in "abc":
        voc.add(name, [("red", (3, 5, 24, 40)), ("blue", (34, 34, 60, 58))])
    return voc.root / "JPEGImages"


def test_a_detector_of_grey_images_is_refused(export, tmp_path):
    with pytest.raises(SystemExit, match="INPUT.FORMAT is L: a file takes images of three"):
        opts = ("INPUT.FORMAT", "L", "INPUT.SSD_AUGMENTATION", "False")
        export(tmp_path / "model.pt2", "--opts", *opts)


def table(out, name):
    """The cells of a row."""
    (row,) = (line for line in out.splitlines() if name in line and line.startswith("|"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_an_onnx_file_is_verified_and_has_the_ap_of_the_model(export, images, tmp_path, capsys):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    path = tmp_path / "new" / "model.onnx"
    export(path, "--nms", "--evaluate")
    out = capsys.readouterr().out
    assert "Verified on 3 images of the test set" in out and path.is_file()
    assert float(table(out, "box (pixels)")[1]) < 0.01
    # Rounding may exchange the last of the 300.
    assert float(table(out, "detections without")[1]) <= 0.0034
    assert table(out, "model.onnx")[2:] == table(out, "PyTorch")[2:]
    assert list(path.parent.iterdir()) == [path]


def best(prediction, count):
    """The score of the last of so many detections, and these."""
    found = prediction.instances[:count]
    threshold = (found.scores[-1].item() + prediction.instances.scores[count].item()) / 2
    return threshold, found


@pytest.mark.parametrize("nms", [[], ["--nms"]])
def test_the_lines_of_the_docs_give_the_models_boxes(
    export, images, voc, tmp_path, tiny_run, monkeypatch, nms
):
    pytest.importorskip("onnxruntime")
    voc.add("wide", [("red", (3, 5, 24, 40))], size=(90, 50))
    shutil.copy(images / "wide.jpg", tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    export(tmp_path / "model.onnx", *nms)
    exec(python_of("export.md"), names := {})
    prediction = Predictor.from_run(tiny_run)("a.jpg")
    threshold, expected = best(prediction, 12)
    boxes, scores, classes = names["detect"]("a.jpg", threshold)
    assert scores.tolist() == pytest.approx(expected.scores.tolist(), abs=1e-3)
    assert boxes == pytest.approx(expected.pred_boxes.tensor.numpy(), abs=0.05)
    assert classes == prediction.class_names[:12]
    everything, *_ = names["detect"]("a.jpg", 0)  # clipped to the image
    assert everything.min() == 0 and everything[:, 2].max() <= 90 and everything[:, 3].max() == 50


@pytest.mark.parametrize("nms", [[], ["--nms"]])
def test_the_javascript_of_the_docs(export, images, tmp_path, tiny_run, monkeypatch, nms):
    modules = os.getenv("MG_NODE_MODULES")
    if not modules or not shutil.which("node"):
        pytest.skip("Node, or onnxruntime-node and sharp, not found (set MG_NODE_MODULES)")
    # Wider than the input, but of equal columns, so that every way to resize it gives the same.
    rows = np.random.default_rng(0).integers(0, 256, (64, 1, 3), dtype=np.uint8)
    Image.fromarray(rows.repeat(90, axis=1)).save(tmp_path / "a.jpg", "PNG")
    monkeypatch.chdir(tmp_path)
    export(tmp_path / "model.onnx", *nms)
    text = (REPOSITORY / "docs" / "export.md").read_text()
    (metadata,) = re.findall(r"python - <<'END'\n(.*?)END", text, re.S)
    subprocess.run([sys.executable, "-c", metadata], check=True)
    threshold, expected = best(Predictor.from_run(tiny_run)("a.jpg"), 12)
    (script,) = re.findall(r"```js\n(.*?)```", text, re.S)
    assert (call := 'detect("a.jpg")') in script
    (tmp_path / "node_modules").symlink_to(modules)
    (tmp_path / "detect.mjs").write_text(script.replace(call, f'detect("a.jpg", {threshold})'))
    out = subprocess.run(["node", "detect.mjs"], check=True, capture_output=True, text=True).stdout
    rows = [line.split() for line in out.splitlines()]
    assert [float(row[1]) for row in rows] == pytest.approx(expected.scores.tolist(), abs=0.006)
    boxes = [[float(x) for x in row[2:]] for row in rows]
    assert boxes == pytest.approx(expected.pred_boxes.tensor.numpy(), abs=0.1)


def test_a_torch_file_without_a_data_set(export, tmp_path, capsys):
    # Exporting is on the CPU, whatever is said.
    export(tmp_path / "model.pt2", "--opts", "DATASETS.REGISTER", [], "MODEL.DEVICE", "cuda")
    assert "random blobs, since there is no data set that can be used" in capsys.readouterr().out
    program = torch.export.load(str(tmp_path / "model.pt2"), extra_files=(extra := {
        "channel_order": "", "thing_classes": "", "suppression": ""
    }))  # fmt: skip
    images = torch.zeros(5, 3, 64, 64, dtype=torch.uint8)
    assert [x.shape for x in program.module()(images)] == [(5, 1920, 4), (5, 1920, 3)]
    assert extra["channel_order"] == '"RGB"' and '"nms_thresh": 0.5' in extra["suppression"]


def test_evaluates_a_run_that_measured_its_misalignment(export, images, tiny_run, tmp_path, capsys):
    config = tiny_run / "config.yaml"
    text = config.read_text()
    assert "MISALIGNMENT: false" in text
    config.write_text(text.replace("MISALIGNMENT: false", "MISALIGNMENT: true"))
    export(tmp_path / "model.pt2", "--evaluate")
    out = capsys.readouterr().out
    assert table(out, "model.pt2")[2:] == table(out, "PyTorch")[2:]


def test_verifies_on_the_first_images_of_many(export, images, voc, tmp_path, capsys):
    for i in range(7):
        voc.add(f"more{i}", [("red", (3, 5, 24, 40))])
    export(tmp_path / "model.pt2", "--images", images)  # ten
    assert "Verified on 8 given images" in capsys.readouterr().out


def test_a_file_that_differs_is_not_kept(export, images, tmp_path, monkeypatch, capsys):
    load = export.module.load_exported
    monkeypatch.setattr(
        export.module, "load_exported", lambda path: lambda x: [y + 0.01 for y in load(path)(x)]
    )
    with pytest.raises(SystemExit, match="error: the file differs from the model and was not kept"):
        export(tmp_path / "model.pt2", "--images", f"{images}/[ab].jpg")
    assert not (tmp_path / "model.pt2").exists()
    out = capsys.readouterr().out
    assert "Verified on 2 given images" in out and table(out, "score")[1] == "0.01"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["model.pb"], r"error: model\.pb: the name must end with \.onnx or \.pt2"),
        (["a.pt2", "--opts", "INPUT.SQUARE_SIZE", 0], r"error: INPUT\.SQUARE_SIZE is 0"),
        (["a.pt2", "--opts", "INPUT.SQUARE_SIZE", 68], "error: .* is 68: .* multiple of 8 pixels"),
        (["a.pt2", "--evaluate", "--opts", "DATASETS.TEST", ()], r"error: .*TEST is empty: name"),
        (["a.pt2", "--images", "none.jpg"], r"error: none\.jpg: there is no such file"),
    ],
)
def test_what_cannot_be_exported(export, args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        export(*args)
    assert not list(tmp_path.glob("a.*"))


def test_no_image_is_decoded_to_choose_some(export, images, voc, tiny_run, monkeypatch):
    for i in range(7):
        voc.add(f"more{i}", [("red", (3, 5, 24, 40))])
    cfg = inference_config(*files_of_run(tiny_run))
    monkeypatch.setattr("mutual_guidance.data.mapper.read_image", lambda *_: 1 / 0)
    assert len(export.module.test_images(cfg)) == 8


def test_a_comparison_of_nothing_is_told(export, images, tmp_path, capsys):
    threshold = ("MODEL.RETINANET.SCORE_THRESH_TEST", 1.0)
    path = tmp_path / "model.pt2"
    export(path, "--nms", "--images", images / "a.jpg", "--opts", *threshold)
    assert path.is_file() and "Nothing was compared" in capsys.readouterr().out
