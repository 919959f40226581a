import json
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from mutual_guidance.config import load_config
from tests.conftest import REPOSITORY, load_script
from tests.runs import CONFIG

tool = load_script("tools/visualize_assignments.py")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a run with three checkpoints, two of them of one iteration."""
    folder = tmp_path_factory.mktemp("run")
    classes = ["MODEL.RETINANET.NUM_CLASSES", "3"]
    detector = build_model(load_config(CONFIG, ["MODEL.DEVICE", "cpu", *classes]))
    for name, iteration in (("0000009", 9), ("0000019", 19), ("final", 19)):
        checkpoint = {"model": detector.state_dict(), "iteration": iteration}
        torch.save(checkpoint, folder / f"model_{name}.pth")
    return folder


@pytest.fixture
def opts(voc, voc_entry):
    """The options of a data set of three images."""
    for name, color in (("a", "red"), ("b", "green"), ("c", "blue")):
        voc.add(name, [(color, (10, 15, 50, 45))])
    opts = ["--opts", "DATASETS.REGISTER", str([voc_entry]), "MODEL.DEVICE", "cpu"]
    opts += ["DATASETS.TRAIN", str((voc_entry["name"],)), "DATASETS.TEST", "()"]
    return [*opts, "INPUT.SQUARE_SIZE", "64"]


def drawn(folder):
    lines = (folder / "counts.jsonl").read_text().splitlines()
    return [(r["image"], r["iteration"]) for r in map(json.loads, lines)]


def test_a_folder_of_checkpoints_becomes_films(run, opts, tmp_path, capsys):
    output = tmp_path / "out"
    tool.main(["--config-file", CONFIG, "--weights", str(run), "--images", "2",
               "--output", str(output), *opts])  # fmt: skip
    assert drawn(output) == [("a", 9), ("b", 9), ("a", 19), ("b", 19)]
    with Image.open(output / "a" / "film.gif") as gif:
        assert gif.n_frames == 2
    told = capsys.readouterr()
    assert "Pictures: 4, in" in told.out and "film.gif" in told.out
    assert "of the same iteration as" in told.out + told.err


def test_pictures_that_are_not_the_trainings_have_another_folder(run, monkeypatch):
    own, ema = run / "model_final.pth", run / "model_ema_final.pth"
    assert tool.default_output(own, None) == run / "visualization" / "assignments"
    monkeypatch.chdir(run)
    assert tool.default_output(Path(own.name), None) == Path("visualization", "assignments")
    assert tool.default_output(ema, None).name == "assignments_model_ema_final"
    assert tool.default_output(own, ["static", "atss"]).name == "assignments_static_atss"


@pytest.mark.parametrize(
    "args", [["run", "--opts", "SEED", "1"], ["--config-file", CONFIG, "--weights", "run"]]
)
def test_another_config_needs_a_folder(args, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args(args)
    assert "name --output" in capsys.readouterr().err
    assert tool.parse_args(["--output", "out", *args]).output == Path("out")


def test_chosen_images_of_one_checkpoint(run, opts, tmp_path, capsys):
    weights = str(run / "model_0000009.pth")
    tool.main(["--config-file", CONFIG, "--weights", weights, "--image-ids", "c", "a",
               "--output", str(tmp_path / "out"), *opts])  # fmt: skip
    assert drawn(tmp_path / "out") == [("c", 9), ("a", 9)]
    assert "Film" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--weights", "nowhere.pth"], "nowhere.pth is no checkpoint"),
        (["--weights", "tests"], "tests is no checkpoint, and no folder with any model_"),
        (["--image-ids", "z"], "no image 'z' in"),
        (["--config-file", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_errors_are_one_sentence(run, opts, args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    model = ["--config-file", CONFIG, "--weights", str(run), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        tool.main([*model, *args, *opts])
