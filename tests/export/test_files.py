import importlib.util
import json

import pytest
import torch
from detectron2.modeling import build_model

from mutual_guidance.assignment import STRATEGIES
from mutual_guidance.errors import ExportError
from mutual_guidance.export import (
    DetectorGraph,
    Suppression,
    check_size,
    export_detector,
    load_exported,
    verify,
)
from tests.conftest import REPOSITORY, tiny_config, tiny_model

SIZE = 64
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def images(count=3):
    return torch.randint(256, (count, 3, SIZE, SIZE), dtype=torch.uint8)


def check_outputs(graph, path):
    run = load_exported(path, num_threads=1)
    for count in (1, 3):  # other numbers than the 2 that were exported with
        assert [x.shape for x in run(images(count))] == [x.shape for x in graph(images(count))]
    parity = verify(graph, run, images())
    assert parity.is_close() and parity.unmatched == 0, parity


@pytest.fixture
def needs_onnx():
    for name in ONNX_PACKAGES:
        pytest.importorskip(name)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory):
    """A graph that ends with boxes and scores, and its file."""
    for name in ONNX_PACKAGES:
        pytest.importorskip(name)
    graph = DetectorGraph(tiny_model(tiny_config("fssd_R_18")))
    path = str(tmp_path_factory.mktemp("onnx") / "model.onnx")
    export_detector(graph, SIZE, path, {"thing_classes": ["a", "b"]})
    return graph, path


def test_an_onnx_file_gives_what_the_model_gives(onnx_file):
    graph, path = onnx_file
    check_outputs(graph, path)


@pytest.mark.parametrize(
    ("detector", "suffix", "nms"),
    [
        ("fcos_R_18", ".onnx", True),
        ("fcos_R_18", ".pt2", False),
        ("retinanet_R_18", ".pt2", True),
    ],
)
def test_files_give_what_the_model_gives(detector, suffix, nms, tmp_path, needs_onnx):
    model = tiny_model(tiny_config(detector, "TEST.DETECTIONS_PER_IMAGE", 20))
    graph = DetectorGraph(model, Suppression.of_model(model, SIZE) if nms else None)
    path = str(tmp_path / f"model{suffix}")
    export_detector(graph, SIZE, path, {})
    check_outputs(graph, path)


def exported(strategy, path, weights):
    cfg = tiny_config("fssd_R_18", "MODEL.MUTUAL_GUIDANCE.STRATEGY", strategy)
    model = build_model(cfg).eval()
    assert model.matcher.strategy == STRATEGIES[strategy]
    model.load_state_dict(weights)
    export_detector(DetectorGraph(model), SIZE, str(path), {})


@pytest.mark.slow
def test_models_of_all_strategies_are_one_onnx_file(tmp_path, needs_onnx):
    weights = tiny_model(tiny_config("fssd_R_18")).state_dict()
    files = set()
    for strategy in STRATEGIES:
        exported(strategy, tmp_path / "model.onnx", weights)
        files.add((tmp_path / "model.onnx").read_bytes())
    assert len(files) == 1


def test_models_of_two_strategies_are_one_torch_graph(tmp_path):
    weights = tiny_model(tiny_config("fssd_R_18")).state_dict()
    graphs = set()
    for strategy in ("static", "mutual_guidance"):
        exported(strategy, tmp_path / "model.pt2", weights)
        program = torch.export.load(str(tmp_path / "model.pt2"))
        graphs.add(program.graph_module.code)
        for name, tensor in weights.items():
            assert torch.equal(program.state_dict[f"model.{name}"], tensor)
    assert len(graphs) == 1


def test_what_stands_in_a_file(onnx_file):
    import onnx

    path = onnx_file[1]
    proto = onnx.load(path)
    assert json.loads(proto.metadata_props[0].value) == ["a", "b"]
    (entry,) = proto.graph.input
    dims = [d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim]
    assert (entry.name, dims) == ("images", ["batch", 3, SIZE, SIZE])
    assert [x.name for x in proto.graph.output] == ["boxes", "scores"]
    with open(path, "rb") as f:
        assert str(REPOSITORY).encode() not in f.read()  # nothing of this machine


def test_what_cannot_be_exported_or_run(tmp_path):
    graph = DetectorGraph(tiny_model(tiny_config()))
    with pytest.raises(ExportError, match=r"model\.pth: the name must end with \.onnx or \.pt2"):
        export_detector(graph, SIZE, str(tmp_path / "model.pth"), {})
    with pytest.raises(ExportError, match="SQUARE_SIZE is 68: .* multiple of 8 pixels"):
        export_detector(graph, 68, str(tmp_path / "model.onnx"), {})
    with pytest.raises(ExportError, match=r"there is no file .*model\.onnx"):
        load_exported(str(tmp_path / "model.onnx"))


def test_missing_packages_are_named(tmp_path, monkeypatch):
    graph = DetectorGraph(tiny_model(tiny_config()))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if "onnx" in name else find_spec(name)
    )
    message = (
        "needs onnx, onnxscript, onnxruntime: python -m pip install onnx onnxscript onnxruntime"
    )
    with pytest.raises(ExportError, match=message):
        export_detector(graph, SIZE, str(tmp_path / "model.onnx"), {})


def test_a_detector_without_the_contract_is_refused():
    model = build_model(tiny_config("fssd_R_18", "MODEL.META_ARCHITECTURE", "RetinaNet"))
    with pytest.raises(ExportError, match="RetinaNet cannot be exported; .* GuidedRetinaNet"):
        check_size(model, SIZE)
