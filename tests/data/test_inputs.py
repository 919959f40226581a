import cv2
import numpy as np
import pytest

from mutual_guidance.data.inputs import Video, find_images, is_video
from mutual_guidance.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Images, one of them below a folder, and a text."""
    for name in ("b.png", "a.JPG", "sub/c.webp", "[x].jpeg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_folders_globs_and_files(folder, monkeypatch):
    assert list(find_images([str(folder)])) == ["[x].jpeg", "a.JPG", "b.png", "sub/c.webp"]
    assert list(find_images([f"{folder}/*.png"])) == ["b.png"]
    assert list(find_images([f"{folder}/**/*.webp"])) == ["c.webp"]
    monkeypatch.chdir(folder)
    found = find_images(["sub", "b.png", str(folder / "sub" / "c.webp"), "b.png"])
    assert found == {"sub/c.webp": str(folder / "sub/c.webp"), "b.png": str(folder / "b.png")}


def test_a_named_file_is_taken_whatever_its_suffix(folder):
    assert list(find_images([str(folder / "notes.txt"), str(folder / "[x].jpeg")])) == [
        "notes.txt",
        "[x].jpeg",
    ]


def test_inputs_that_match_nothing_are_named(folder):
    with pytest.raises(InputError, match=r"nowhere\.png: there is no such file or folder"):
        find_images([str(folder / "nowhere.png")])
    with pytest.raises(InputError, match=r"\*\.gif: no image matches"):
        find_images([f"{folder}/*.png", f"{folder}/*.gif"])
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match="empty.*: no image matches"):
        find_images([str(folder / "empty")])


def test_frames_of_a_video(tmp_path):
    path = str(tmp_path / "clip.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 16))
    for value in (0, 100, 200):
        writer.write(np.full((16, 32, 3), value, np.uint8))
    writer.release()
    assert is_video(path) and is_video("camera:0") and not is_video("a.png")
    video = Video(path)
    assert (video.name, video.fps, video.num_frames) == ("clip", 10, 3)
    names, frames = zip(*video, strict=True)
    assert names == ("clip_000000", "clip_000001", "clip_000002")
    assert [f.shape for f in frames] == [(16, 32, 3)] * 3
    assert [round(f.mean() / 100) for f in frames] == [0, 1, 2]

    video = Video(path)
    video.num_frames = 2  # too low, as a container's estimate can be
    assert len(list(video)) == 3


def test_a_video_or_camera_that_cannot_be_opened(tmp_path):
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    for source, message in (
        (str(tmp_path / "torn.mp4"), r"torn\.mp4: OpenCV cannot open it"),
        ("camera:99", "camera:99: OpenCV cannot open it: is it connected"),
        ("camera:front", "camera:front: a camera is named by its number"),
    ):
        with pytest.raises(InputError, match=message):
            Video(source)
