import importlib.util
import json
import os
import random
import re
import signal
import uuid
import warnings
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from hypothesis import settings

from mutual_guidance.checkpoint import Checkpointer
from mutual_guidance.config import load_config

from .pretend_gpu import pretend_gpu

# Asked before a test hides it: CUDA counts its devices once.
HAS_GPU = torch.cuda.is_available()
settings.register_profile("seeded", deadline=None, derandomize=True)
settings.load_profile("seeded")

REPOSITORY = Path(__file__).resolve().parents[1]
CLASSES = ["red", "green", "blue"]
PAGES = [
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "datasets/README.md")),
    *sorted((REPOSITORY / "projects" / "MutualGuidance").glob("*.md")),
]


def load_script(path):
    """A script of the project, by its path from the root, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_instances(boxes, classes, side=128):
    """Ground truths (XYXY, pixels) of a square image."""
    instances = Instances((side, side))
    instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return instances


def predicted(boxes, scores, classes, size=(64, 64), **fields):
    """Predictions (XYXY, pixels) of an image of (height, width)."""
    return Instances(
        size,
        pred_boxes=Boxes(torch.as_tensor(np.asarray(boxes)).reshape(-1, 4)),
        scores=torch.as_tensor(scores),  # in the precision of an array
        pred_classes=torch.as_tensor(np.array(classes, np.int64)),
        **{name: torch.as_tensor(values) for name, values in fields.items()},
    )


def write_coco(path, names, images, first_id=1):
    """
    Write COCO's JSON of the classes ``names``; ids count from ``first_id``.

    images: (file name, (width, height), objects), an object being (index of its class, XYXY box)
    and, if need be, a dictionary of more keys.
    """
    content = {"images": [], "annotations": []}
    content["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, first_id)]
    for i, (file_name, (width, height), objects) in enumerate(images, first_id):
        size = {"width": width, "height": height}
        content["images"].append({"id": i, "file_name": file_name, **size})
        for c, (x0, y0, x1, y1), *more in objects:
            ids = {"id": first_id + len(content["annotations"]), "image_id": i}
            box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
            annotation = {**ids, "category_id": first_id + c, **box}
            content["annotations"].append(annotation | (more[0] if more else {}))
    path.write_text(json.dumps(content))


def write_video(path, frames, codec="MJPG"):
    """Frames (H, W, 3) uint8, BGR, ten a second."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()


def data_keys(entry):
    """KEY VALUE pairs of a config that trains and tests on an entry of DATASETS.REGISTER."""
    name = (entry["name"],)
    return ["DATASETS.REGISTER", [entry], "DATASETS.TRAIN", name, "DATASETS.TEST", name]


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_gpu(request):
    """Tests that are not of a GPU are the same on a machine with one."""
    # Not the tests' own, which would then be undone after their folders are removed.
    with pytest.MonkeyPatch.context() as patched:
        if request.node.get_closest_marker("gpu"):
            if not HAS_GPU:
                pytest.skip("needs a CUDA device")
        else:
            patched.setattr("torch.cuda.is_available", lambda: False)
            patched.setenv("CUDA_VISIBLE_DEVICES", "")  # of the processes that they start
        yield


@pytest.fixture(autouse=True)
def signals_as_in_a_terminal():
    """Whatever nohup or a worker of pytest-xdist has made of them."""
    usual = {signal.SIGINT: signal.default_int_handler}
    usual |= {signal.SIGHUP: signal.SIG_DFL, signal.SIGTERM: signal.SIG_DFL}
    previous = {s: signal.signal(s, handler) for s, handler in usual.items()}
    yield
    for s, handler in previous.items():
        signal.signal(s, handler)


@pytest.fixture
def storage():
    """Detectron2's event storage, which its losses write to."""
    with EventStorage() as event_storage:
        yield event_storage


@pytest.fixture
def gpu():
    """``cuda:0`` without a GPU; see pretend_gpu.py."""
    with pretend_gpu() as device:
        yield device


@pytest.fixture(params=["pretended", pytest.param("real", marks=pytest.mark.gpu)])
def any_gpu(request):
    """``cuda:0``, pretended and, where there is one, real."""
    with pretend_gpu() if request.param == "pretended" else nullcontext():
        yield


def count_waits(function):
    """How often the host waits for a real GPU in a call."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            function()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in told)


@pytest.fixture
def real_data(monkeypatch):
    """Folder of the real data sets; the test is skipped where they are absent."""
    default = REPOSITORY.parent / "shared" / "data"
    root = Path(os.getenv("MG_TEST_DATA", default))
    if not root.is_dir():
        pytest.skip(f"real data sets not found at {root} (set MG_TEST_DATA)")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    return root


# A detector of two levels, which is built and exported in a moment.
TINY = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "DATALOADER.NUM_WORKERS", 0,
    "INPUT.SQUARE_SIZE", 64,
    "MODEL.RESNETS.OUT_FEATURES", ["res2"], "MODEL.PYRAMID.IN_FEATURES", ["res2"],
    "MODEL.PYRAMID.NUM_LEVELS", 2, "MODEL.PYRAMID.OUT_CHANNELS", 32,
    "MODEL.ANCHOR_GENERATOR.SIZES", [[16, 22.6], [32, 45.3]],
    "MODEL.RETINANET.IN_FEATURES", ["p2", "p3"], "MODEL.RETINANET.NUM_CLASSES", 3,
    "MODEL.FCOS.IN_FEATURES", ["p2", "p3"], "MODEL.FCOS.NUM_CLASSES", 3,
]  # fmt: skip


def tiny_config(detector="retinanet_R_18", *opts):
    """Config of a tiny detector with three classes, not frozen."""
    config = REPOSITORY / "configs" / "PascalVOC-Detection" / f"{detector}.yaml"
    cfg = load_config(str(config), [*TINY, *opts])
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    return cfg


def tiny_model(cfg):
    """In evaluation mode, its random scores and boxes spread as those of a trained detector."""
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    for parameter in model.head.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_normal_(parameter)
    return model


@pytest.fixture
def tiny_run(tmp_path, voc_entry):
    """
    The output folder of a training of a tiny detector on the data set of ``voc``. Its scores lie
    apart, as those of a trained one: rounding, another on every processor, leaves their order.
    """
    cfg = tiny_config()
    cfg.DATASETS.REGISTER = [voc_entry]
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (voc_entry["name"],)
    cfg.DATASETS.CLASSES = voc_entry["classes"]
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    model = tiny_model(cfg)
    for name, value in model.named_parameters():
        if ".cls_score." in name and name.endswith("weight"):
            value.data *= 30
    checkpointer = Checkpointer(model, save_dir=cfg.OUTPUT_DIR)
    os.makedirs(cfg.OUTPUT_DIR)
    checkpointer.save("model_final")
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
    return tmp_path / "run"


def python_of(page):
    """The Python of a page below docs/."""
    return "".join(
        re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / page).read_text(), re.S)
    )


class VOCWriter:
    """Writes a VOC-layout data set of coloured rectangles."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)

    def add(self, image_id, objects, size=(64, 64), split="train", listed=True):
        """objects: (name, (xmin, ymin, xmax, ymax), *tags) with 1-based inclusive pixels."""
        width, height = size
        image = np.full((height, width, 3), 128, np.uint8)
        text = ""
        for name, box, *tags in objects:
            x0, y0, x1, y1 = (int(v) for v in box)
            colour = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}
            image[max(y0 - 1, 0) : y1, max(x0 - 1, 0) : x1] = colour.get(name, (0, 255, 255))
            corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            bndbox = "".join(f"<{k}>{v}</{k}>" for k, v in corners)
            marks = "".join(tags)
            text += f"<object><name>{name}</name>{marks}<bndbox>{bndbox}</bndbox></object>"
        cv2.imwrite(str(self.root / "JPEGImages" / f"{image_id}.jpg"), image)
        size_tag = f"<size><width>{width}</width><height>{height}</height></size>"
        text = f"<annotation>{size_tag}{text}</annotation>"
        (self.root / "Annotations" / f"{image_id}.xml").write_text(text)
        if listed:
            with open(self.root / "ImageSets" / "Main" / f"{split}.txt", "a") as f:
                f.write(f"{image_id}\n")

    def rewrite(self, image_id, *changes):
        """Replace pieces of the text of an annotation and return its path."""
        path = self.root / "Annotations" / f"{image_id}.xml"
        text = path.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text)
        return path


@pytest.fixture
def voc(tmp_path):
    """A writer of a VOC-layout data set below tmp_path / "voc"."""
    return VOCWriter(tmp_path / "voc")


@pytest.fixture
def voc_entry(voc):
    """An entry of DATASETS.REGISTER for the data set of ``voc``, of a name of its own."""
    return {
        "name": f"test_{uuid.uuid4().hex}",
        "format": "voc",
        "root": str(voc.root),
        "split": "train",
        "classes": list(CLASSES),
    }
