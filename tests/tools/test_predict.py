import json
import os
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from mutual_guidance.prediction import DrawnImages
from tests.conftest import REPOSITORY, load_script, write_video


@pytest.fixture
def predict(tmp_path, tiny_run):
    """Calls the script, which writes to tmp_path / "out", and returns its exit code."""
    module = load_script("tools/predict.py")

    def call(*args, model=(tiny_run,), threshold=0, output=tmp_path / "out"):
        argv = [*model, *args, "--output", output, "--min-score", threshold]
        return module.main([*map(str, argv)])

    call.module = module
    return call


@pytest.fixture
def images(voc):
    """A folder with five images, one of them below another folder."""
    for name in "abcde":
        voc.add(name, [("red", (3, 5, 24, 40))], size=(80, 60))
    folder = voc.root / "JPEGImages"
    (folder / "sub").mkdir()
    (folder / "e.jpg").rename(folder / "sub" / "a.jpg")
    return folder


NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "sub/a.jpg"]


def coco(tmp_path):
    return json.loads((tmp_path / "out" / "predictions.json").read_text())


def test_draws_and_writes_every_image(predict, images, tmp_path, capsys):
    assert predict(images, "--batch-size", "2", "--draw", "--coco", "--voc") == 0
    dataset = coco(tmp_path)
    assert [x["file_name"] for x in dataset["images"]] == NAMES
    assert {x["image_id"] for x in dataset["annotations"]} == {1, 2, 3, 4, 5}
    for name in NAMES:
        assert cv2.imread(str(tmp_path / "out" / "images" / name)).shape == (60, 80, 3)
    text = (tmp_path / "out" / "voc" / "comp4_det_test_red.txt").read_text()
    assert {line.split()[0] for line in text.splitlines()} == {"a", "b", "c", "d", "sub/a"}
    out = capsys.readouterr().out
    assert "5 images, " in out and "images a second (the model alone: " in out


def test_a_torn_file_is_named_and_the_rest_is_done(predict, images, tmp_path, capsys):
    (images / "b.jpg").write_bytes((images / "b.jpg").read_bytes()[:300])
    (images / "c.jpg").write_text("no image")
    assert predict(images, "--coco") == 1
    names = [x["file_name"] for x in coco(tmp_path)["images"]]
    assert names == ["a.jpg", "d.jpg", "sub/a.jpg"]
    captured = capsys.readouterr()
    assert "3 images, " in captured.out
    assert "not read: b.jpg: image cannot be read" in captured.err
    assert "not read: c.jpg: " in captured.err
    assert captured.err.endswith("error: 2 inputs cannot be read as a whole\n")


@pytest.mark.parametrize(
    ("batch", "number"), [("2", signal.SIGINT), ("8", signal.SIGINT), ("2", signal.SIGTERM)]
)
def test_a_signal_keeps_what_was_done(
    predict, images, tmp_path, monkeypatch, capsys, batch, number
):
    class Interrupting(DrawnImages):
        def add(self, name, instances, pixels):
            if name == "d.jpg":
                os.kill(os.getpid(), number)
            super().add(name, instances, pixels)

    monkeypatch.setattr(predict.module, "DrawnImages", Interrupting)
    assert predict(images, "--coco", "--draw", "--batch-size", batch) == 130
    # It came while the fourth was written to one file after the other.
    assert [x["file_name"] for x in coco(tmp_path)["images"]] == NAMES[:3]
    assert "3 images, " in (captured := capsys.readouterr()).out
    assert "Interrupted: what was done until then is written" in captured.err


def test_one_threshold_for_all_that_is_written(predict, images, tmp_path, capsys):
    predict(images, "--coco", threshold=0)
    scores = sorted(x["score"] for x in coco(tmp_path)["annotations"])
    threshold = scores[len(scores) // 2]
    expected = sum(score >= threshold for score in scores)
    assert 0 < expected < len(scores)
    assert predict(images, "--coco", "--voc", "--draw", threshold=threshold) == 0
    assert len(coco(tmp_path)["annotations"]) == expected
    voc_files = (tmp_path / "out" / "voc").iterdir()
    assert sum(len(path.read_text().splitlines()) for path in voc_files) == expected
    out = capsys.readouterr().out
    assert f"5 images, {expected} boxes with a score of {threshold:g} or more" in out
    assert "the highest score" not in out
    predict(images, "--draw", threshold=1.1)
    assert "0 boxes with a score of 1.1 or more (--min-score)" in (out := capsys.readouterr().out)
    assert f"the highest score of any box is {scores[-1]:.4f}" in out
    with Image.open(images / "a.jpg") as untouched, Image.open(drawn(tmp_path, "a.jpg")) as empty:
        difference = np.asarray(untouched, int) - np.asarray(empty, int)
    assert abs(difference).mean() < 2  # but for JPEG


def drawn(tmp_path, name):
    return tmp_path / "out" / "images" / name


def test_what_is_left_out_is_counted(predict, images, capsys):
    for name in ("a.txt", "b.txt", "README"):
        (images / name).write_text("no image")
    (images / "gone.jpg").symlink_to("nowhere.jpg")
    assert predict(images, "--coco") == 1
    captured = capsys.readouterr()
    assert "left out, not images by their names: 3 files (2 .txt, 1 no suffix)" in captured.out
    reason = "image is missing: it is there as a link that leads nowhere"
    assert f"not read: gone.jpg: {reason}" in captured.err


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_input_is_never_overwritten(predict, images, tmp_path):
    (photos := tmp_path / "photos" / "images").parent.mkdir()
    images.rename(photos)
    (tmp_path / "link").symlink_to(photos.parent)
    odd = shutil.copy(photos / "a.jpg", tmp_path / "photos" / "predictions.json")
    before = contents(photos.parent)
    linked = tmp_path / "link" / "images"
    for args in (
        [photos, "--draw"],
        [linked, "--draw"],
        [odd, "--coco"],
        [photos.parent, "--draw"],
    ):
        for output in (photos.parent, tmp_path / "link", photos / ".."):
            with pytest.raises(SystemExit, match=r"error: the input .* would be overwritten"):
                predict(*args, output=output)
            assert contents(photos.parent) == before


def test_a_video_is_never_overwritten(predict, tmp_path):
    write_video(path := tmp_path / "clip.avi", grey(3))
    path = path.rename(tmp_path / "clip.mp4")
    before = path.read_bytes()
    for output in (tmp_path, tmp_path / "." / "run" / ".."):
        with pytest.raises(SystemExit, match=r"error: the input .*clip\.mp4.* be overwritten"):
            predict(path, "--draw", output=output)
    assert path.read_bytes() == before
    assert predict(path, "--coco", output=tmp_path) == 0


def test_names_that_are_no_utf8(predict, images, tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    shutil.copy(images / "a.jpg", images / name)
    (images / os.fsdecode(b"torn\xe9.jpg")).write_text("no image")
    command = [
        sys.executable, REPOSITORY / "tools" / "predict.py", tmp_path / "run", images,
        "--coco", "--voc", "--draw", "--output", tmp_path / "out",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, cwd=tmp_path)
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"not read: torn\\udce9.jpg: " in done.stderr
    names = [x["file_name"] for x in coco(tmp_path)["images"]]
    assert name in names and len(names) == 6
    assert drawn(tmp_path, name).is_file()


def test_an_image_of_another_name_is_drawn_as_png(predict, images, tmp_path):
    for name in ("scan", "notes.txt"):
        shutil.copy(images / "b.jpg", images / name)
    assert predict(images / "scan", images / "notes.txt", images / "a.jpg", "--draw") == 0
    for name in ("scan", "notes.txt"):
        assert (tmp_path / "out" / "images" / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "images" / "a.jpg").read_bytes().startswith(b"\xff\xd8")


def grey(frames):
    return [np.full((48, 64, 3), 100, np.uint8)] * frames


def test_frames_of_a_video(predict, tmp_path):
    write_video(path := tmp_path / "clip.avi", grey(3))
    assert predict(path) == 0  # draws and writes COCO's JSON where nothing else is asked for
    assert [x["file_name"] for x in coco(tmp_path)["images"]] == [
        "clip_000000",
        "clip_000001",
        "clip_000002",
    ]
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and drawn.get(cv2.CAP_PROP_FPS) == 10


def test_a_torn_video_is_an_error(predict, tmp_path, capsys):
    write_video(path := tmp_path / "clip.avi", grey(30))
    with path.open("r+b") as f:
        f.truncate(path.stat().st_size // 2)
    assert predict(path) == 1
    count = len(coco(tmp_path)["images"])
    assert 0 < count < 25
    assert (
        f"clip.avi: {count} of 30 frames can be read: the file is torn" in capsys.readouterr().err
    )
    assert (tmp_path / "out" / "clip.mp4").stat().st_size > 1000


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["nowhere.jpg"], r"error: nowhere\.jpg: there is no such file or folder"),
        (["*.nothing"], r"error: \*\.nothing: no image matches"),
        (["none.mp4"], r"error: none\.mp4: OpenCV cannot open it"),
        (["none.mp4", "a.jpg"], r"error: none\.mp4: a video or camera must be the only input"),
    ],
)
def test_inputs_that_are_not_there(predict, inputs, message):
    with pytest.raises(SystemExit, match=message):
        predict(*inputs)


def test_models_that_are_not_there(predict, images, tmp_path, capsys):
    with pytest.raises(SystemExit, match="error: .*nowhere has no config.yaml"):
        predict(images, model=(tmp_path / "nowhere",))
    config = ("--config-file", tmp_path / "run" / "config.yaml")
    with pytest.raises(SystemExit, match="error: MODEL.WEIGHTS: there is no file"):
        predict(images, model=(*config, "--weights", tmp_path / "none.pth"))
    for model in ((), config, (*config, tmp_path)):
        with pytest.raises(SystemExit, match="2"):
            predict(images, model=model)
    assert "which model? Give RUN" in capsys.readouterr().err


def test_vocs_text_of_a_video(predict, tmp_path):
    write_video(path := tmp_path / "my.holiday.avi", grey(3))
    assert predict(path, "--voc") == 0
    text = (tmp_path / "out" / "voc" / "comp4_det_test_red.txt").read_text()
    frames = {f"my.holiday_{i:06d}" for i in range(3)}
    assert {line.split()[0] for line in text.splitlines()} == frames
    path = path.rename(tmp_path / "my holiday.avi")
    with pytest.raises(SystemExit, match="my holiday: VOC's text has no ids with spaces"):
        predict(path, "--voc")


@pytest.mark.parametrize("name", ["car/truck", "../x"])
def test_classes_that_cannot_name_vocs_files(predict, images, tiny_run, tmp_path, name):
    config = tiny_run / "config.yaml"
    config.write_text(config.read_text().replace("green", name))
    with pytest.raises(SystemExit, match=f"error: class {name}: VOC's text has a file of .* name"):
        predict(images, "--voc")
    assert not (tmp_path / "out").exists()
    assert predict(images, "--coco") == 0
