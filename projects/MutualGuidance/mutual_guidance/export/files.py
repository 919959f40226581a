"""Writing and reading exported detectors: .onnx and .pt2 (torch.export)."""

import contextlib
import importlib.util
import io
import json
import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ExportError
from ..modeling.meta_arch import Guided
from ..run_files import replace_file
from .graph import DetectorGraph

Run = Callable[[Tensor], tuple[Tensor, ...]]

_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_OUTPUTS = ("boxes", "scores", "classes")
_DYNAMIC = {"images": {0: torch.export.Dim("batch")}}


def export_detector(
    graph: DetectorGraph, size: int, path: str, metadata: dict[str, object]
) -> None:
    """
    Write the graph for images (N, 3, size, size), uint8, of any number.

    Args:
        graph: of a model on the CPU. path: ends with .onnx or .pt2.
        metadata: goes into the file, its values as JSON.

    Raises:
        ExportError: another suffix, ``size`` does not fit the backbone, or a package is missing.
    """
    check_path(path)
    check_size(graph.model, size)
    images = torch.zeros(2, 3, size, size, dtype=torch.uint8)  # torch.export takes 1 for constant
    texts = {key: json.dumps(value) for key, value in metadata.items()}
    _WRITERS[os.path.splitext(path)[1]](graph.eval(), images, path, texts)


def load_exported(path: str, num_threads: int = 0) -> Run:
    """
    A function from images (N, 3, S, S), uint8, to the outputs of the file, on the CPU. A .pt2 can
    run code: load only what you made.

    Args:
        num_threads: of onnxruntime; 0 leaves it to it. A .pt2 runs in PyTorch, with its threads.

    Raises:
        ExportError: no such file, another suffix, or a package is missing.
    """
    if not os.path.isfile(path):
        raise ExportError(f"there is no file {path}")
    check_path(path)
    if path.endswith(".pt2"):
        module = torch.export.load(path).module()
        return torch.no_grad()(lambda images: tuple(module(images)))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: tuple(
        torch.from_numpy(np.array(x)) for x in session.run(None, {"images": images.numpy()})
    )


def check_path(path: str) -> None:
    """Raise ExportError unless a file of that name can be written and run here."""
    suffix = os.path.splitext(path)[1]
    if suffix not in _WRITERS:
        raise ExportError(f"{path}: the name must end with .onnx or .pt2")
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if suffix == ".onnx" and missing:
        raise ExportError(
            f"{path} needs {', '.join(missing)}: python -m pip install {' '.join(missing)}"
        )


def check_size(model: nn.Module, size: int) -> None:
    """
    Raise ExportError unless the model is a guided detector and takes square images of ``size``
    pixels.
    """
    if not isinstance(model, Guided):
        raise ExportError(
            f"a {type(model).__name__} cannot be exported; a RetinaNet can as "
            "MODEL.META_ARCHITECTURE GuidedRetinaNet, which takes the same weights"
        )
    divisor = max(model.backbone.size_divisibility, 1)
    if size <= 0 or size % divisor:
        raise ExportError(
            f"INPUT.SQUARE_SIZE is {size}: a file takes square images of one size, which this "
            f"detector needs to be a multiple of {divisor} pixels"
        )


def _write_pt2(graph: DetectorGraph, images: Tensor, path: str, metadata: dict[str, str]) -> None:
    with torch.no_grad():
        program = torch.export.export(graph, (images,), dynamic_shapes=_DYNAMIC)
    replace_file(path, lambda f: torch.export.save(program, f, extra_files=metadata))


def _write_onnx(graph: DetectorGraph, images: Tensor, path: str, metadata: dict[str, str]) -> None:
    import onnx

    with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):  # of its progress
        program = torch.onnx.export(
            graph,
            (images,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=_OUTPUTS[: 3 if graph.suppression else 2],
            dynamic_shapes=_DYNAMIC,
            custom_translation_table={torch.ops.mutual_guidance.suppress.default: _onnx_suppress},
        )
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, model.graph):
        del part.metadata_props[:]  # stack traces, with the paths of this machine
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    replace_file(path, lambda f: onnx.save(model, f))


def _onnx_suppress(boxes, scores, classes, score_thresh: float, nms_thresh: float):
    """:func:`graph.suppress` in ONNX, whose own operator takes scores (N, K, C)."""
    from onnxscript import opset18 as op

    depth = op.Add(op.ReduceMax(classes, keepdims=0), op.Constant(value_int=1))
    one_hot = op.OneHot(classes, depth, op.Constant(value_floats=[0.0, 1.0]), axis=1)  # (N, K, C)
    selected = op.NonMaxSuppression(
        boxes,
        op.Mul(one_hot, op.Unsqueeze(scores, op.Constant(value_ints=[1]))),
        op.Shape(scores, start=1, end=2),
        op.Constant(value_floats=[nms_thresh]),
        op.Constant(value_floats=[score_thresh]),
    )  # rows of image, class and candidate
    indices = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    ones = op.Expand(op.Constant(value_float=1.0), op.Shape(indices, start=0, end=1))
    zeros = op.Mul(scores, op.Constant(value_float=0.0))
    return op.Cast(op.ScatterND(zeros, indices, ones), to=9)  # 9 is BOOL


_WRITERS = {".onnx": _write_onnx, ".pt2": _write_pt2}
