import importlib.util

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from tests.conftest import REPOSITORY, VOCWriter

CONFIG = """
_BASE_: "{base}"
INPUT:
  SQUARE_SIZE: 64
DATASETS:
  REGISTER:
    - {{name: {name}, format: voc, root: "{root}", split: train, classes: [red, green]}}
  TRAIN: ("{name}",)
  TEST: ("{name}",)
"""


@pytest.fixture(scope="module")
def tool():
    path = REPOSITORY / "tools" / "check_dataset.py"
    spec = importlib.util.spec_from_file_location("check_dataset", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def one_image(tool, boxes, side=64.0):
    boxes = torch.tensor(boxes, dtype=torch.float32)
    count = len(boxes)
    return tool.Objects(
        boxes, torch.full((count, 2), side), torch.zeros(count).long(), torch.tensor([count])
    )


def square_anchors(side, stride, offset=0.5):
    return DefaultAnchorGenerator(
        sizes=[[side]], aspect_ratios=[[1.0]], strides=[stride], offset=offset
    )


def test_best_iou_by_hand(tool):
    # Anchors of 16 pixels around (8, 8), (24, 8), ... (56, 56): they tile the image.
    boxes = [
        [0, 0, 16, 16],  # an anchor itself
        [0, 0, 16, 8],  # half of one: 128 / 256
        [8, 0, 24, 16],  # between two: 128 / (256 + 256 - 128) = 1/3
        [8, 8, 24, 24],  # between four: 64 / (256 + 256 - 64) = 1/7
        [0, 0, 64, 64],  # sixteen times as large: 1/16
    ]
    ious = tool.best_anchor_ious(one_image(tool, boxes), square_anchors(16, 16))
    assert ious.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 7, 1 / 16])
    # Of five objects three are below 0.5 and 0.4, and two below 0.2.
    row = tool.share_table({"these": ious}).splitlines()[-1].split("|")
    assert [cell.strip() for cell in row[1:-1]] == ["these", "60.0", "60.0", "40.0"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(0, 59, width=32)] * 2, *[st.floats(1, 60, width=32)] * 2)),
    st.sampled_from([0.0, 0.5]),
)
def test_best_iou_is_that_of_all_anchors(tool, rows, offset):
    rows = [*rows, (3.0, 4.0, 20.0, 10.0)]
    boxes = [[x, y, min(x + w, 64.0), min(y + h, 64.0)] for x, y, w, h in rows]
    generator = DefaultAnchorGenerator(
        sizes=[[8, 11.3], [16, 22.6]], aspect_ratios=[[1.0, 0.5, 2.0]], strides=[8, 16],
        offset=offset,
    )  # fmt: skip
    anchors = generator([torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 4, 4)])
    everywhere = torch.cat([a.tensor for a in anchors])
    expected = box_iou(torch.tensor(boxes), everywhere).amax(dim=1)
    ious = tool.best_anchor_ious(one_image(tool, boxes), generator)
    torch.testing.assert_close(ious, expected, atol=1e-5, rtol=0)


def test_suggested_sizes_reach_from_one_quantile_to_the_other(tool):
    # 100 scales 1..100: the 5 % quantile is the sixth, the 95 % the 95th. From 6 on, sizes of
    # 6, 8.5, 12, 17, 24, 34, 48, 68, 96, 136 reach 95 at the fifth level.
    sizes = tool.suggest_sizes(torch.arange(1.0, 101.0))
    assert [s[0] for s in sizes] == [6, 12, 24, 48, 96]
    assert sizes[0][1] == pytest.approx(6 * 2**0.5, abs=0.01)
    assert tool.suggest_sizes(torch.full((9,), 30.0)) == [[30.0, 42.43]]
    assert len(tool.suggest_sizes(torch.tensor([1.0, 1000.0]))) == tool.MAX_LEVELS


def test_objects_are_counted_at_the_size_of_the_detectors_input(tool, tmp_path, capsys):
    voc = VOCWriter(tmp_path / "voc")
    voc.add("a", [("red", (1, 1, 64, 32)), ("green", (33, 33, 128, 64))], size=(128, 64))
    voc.add("b", [])
    text = CONFIG.format(
        base=REPOSITORY / "configs" / "Base-Anchors.yaml", name="checked", root=voc.root
    )
    (tmp_path / "own.yaml").write_text(text)
    tool.main([str(tmp_path / "own.yaml"), "--output", str(tmp_path / "pictures")])
    output = capsys.readouterr().out
    assert "checked: 2 objects in 2 images, 1 of them without any" in output
    # 128 x 64 is warped to 64 x 64: widths are halved, 64 -> 32 and 96 -> 48.
    (widths,) = (line.split("|") for line in output.splitlines() if "width (px)" in line)
    assert [float(widths[i]) for i in (2, 8)] == [32, 48]
    assert "SIZES" in output and (tmp_path / "pictures" / "checked.png").stat().st_size > 10_000

    tool.main(["checked", "--config-file", str(tmp_path / "own.yaml"), "--output", str(tmp_path)])
    assert capsys.readouterr().out.count("2 objects in 2 images") == 1


def test_faults_end_it_with_the_table(tool, tmp_path):
    voc = VOCWriter(tmp_path / "voc")
    voc.add("a", [("purple", (1, 1, 9, 9))])
    text = CONFIG.format(
        base=REPOSITORY / "configs" / "Base-Anchors.yaml", name="faulty", root=voc.root
    )
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(SystemExit, match=r"error: .*\n.*\n.*\n.*unknown class 'purple'"):
        tool.main([str(tmp_path / "own.yaml")])
    with pytest.raises(SystemExit, match="error: unknown data set 'fualty'"):
        tool.main(["fualty", "--config-file", str(tmp_path / "own.yaml")])
    with pytest.raises(SystemExit, match="names no data set"):
        tool.main([str(REPOSITORY / "configs" / "Base-Anchors.yaml")])


def test_a_detector_of_points_has_no_anchors(tool, real_data):
    with pytest.raises(SystemExit, match="GuidedFCOS has no anchors"):
        config = REPOSITORY / "configs" / "BCCD" / "fcos_R_18.yaml"
        tool.main(["bccd_test", "--config-file", str(config)])
