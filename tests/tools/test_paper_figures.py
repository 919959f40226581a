import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from mutual_guidance.config import load_config
from tests.conftest import REPOSITORY, load_script

CONFIGS = {
    "Shapes/retinanet_R_18.yaml": "IoU anchor",
    "PascalVOC-Detection/fcos_R_18.yaml": "centerness",
}


tool = load_script("tools/paper_figures.py")


def test_amplification(tmp_path):
    tool.main(["amplification", "--sigmas", "2", "--output", str(tmp_path / "new")])
    with Image.open(tmp_path / "new" / "amplification.png") as image:
        assert image.width > 400


def test_values_out_of_range(tmp_path, capsys):
    output = ["--output", str(tmp_path)]
    with pytest.raises(SystemExit, match="error: --sigmas: .* got 0.5"):
        tool.main(["amplification", "--sigmas", "2", "0.5", *output])
    with pytest.raises(SystemExit, match="2"):
        tool.main(["candidates", "run", "--rows", "0", *output])
    assert "--rows: must be 1 or more, got 0" in capsys.readouterr().err


@pytest.mark.parametrize("config", CONFIGS)
def test_candidates(config, voc, voc_entry, tmp_path, capsys):
    voc.add("cat", [("red", (3, 5, 40, 40)), ("blue", (30, 30, 60, 60))])
    path = str(REPOSITORY / "configs" / config)
    classes = ["MODEL.RETINANET.NUM_CLASSES", "3", "MODEL.FCOS.NUM_CLASSES", "3"]
    detector = build_model(load_config(path, ["MODEL.DEVICE", "cpu", *classes]))
    torch.save({"model": detector.state_dict()}, tmp_path / "model.pth")
    args = ["candidates", "--config-file", path, "--weights", str(tmp_path / "model.pth")]
    args += ["--output", str(tmp_path), "--rows", "28"]
    opts = ["--opts", "DATASETS.REGISTER", str([voc_entry]), "MODEL.DEVICE", "cpu"]
    opts += ["DATASETS.TRAIN", str((voc_entry["name"],)), "DATASETS.TEST", "()"]
    tool.main([*args, "--object", "1", *opts])
    told = capsys.readouterr().out
    assert CONFIGS[config] in told and "positive" in told
    assert "| Z " in told and "| B1 " in told  # 28 rows
    with Image.open(tmp_path / "candidates_cat_1.png") as image:
        assert image.width > 1000

    with pytest.raises(SystemExit, match="error: image cat has the objects 0 to 1"):
        tool.main([*args, "--object", "2", *opts])
    with pytest.raises(SystemExit, match="error: no image 'dog'"):
        tool.main([*args, "--image-id", "dog", *opts])
