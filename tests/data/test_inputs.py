import os

import numpy as np
import pytest

from mutual_guidance.data.inputs import Video, find_images, is_video
from mutual_guidance.errors import InputError
from tests.conftest import write_video

BLACK = [np.zeros((16, 32, 3), np.uint8)] * 3
ALL = ["[x].jpeg", "a.JPG", "b.png", "sub/c.webp"]


def names(*inputs):
    return list(find_images(inputs).paths)


@pytest.fixture
def folder(tmp_path):
    """Images, one of them below a folder, and a text."""
    for name in ("b.png", "a.JPG", "sub/c.webp", "[x].jpeg", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return tmp_path


def test_folders_globs_and_files(folder, monkeypatch):
    assert names(str(folder)) == ALL
    assert names(f"{folder}/*.png") == ["b.png"]
    assert names(f"{folder}/**/*.webp") == names(f"{folder}/*/**/*.webp") == ["c.webp"]
    monkeypatch.chdir(folder)
    found = find_images(["sub", "b.png", str(folder / "sub" / "c.webp"), "b.png"])
    assert found.paths == {"sub/c.webp": str(folder / "sub/c.webp"), "b.png": str(folder / "b.png")}


def test_a_named_file_is_taken_whatever_its_suffix(folder):
    assert names(str(folder / "notes.txt"), str(folder / "[x].jpeg")) == ["notes.txt", "[x].jpeg"]


def test_other_files_are_counted(folder):
    notes = str(folder / "notes.txt")
    assert find_images([str(folder)]).others == find_images([f"{folder}/*"]).others == [notes]
    assert find_images([str(folder), notes]).others == []  # taken, since it is named


def test_hidden_files_and_folders_are_left_out(folder):
    for name in ("._a.JPG", ".cache/d.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    assert names(str(folder)) == names(f"{folder}/**") == ALL
    assert names(str(folder / ".cache")) == ["d.png"]


@pytest.mark.parametrize("pattern", ["", "**", "**/*.*", "sub/**", "**/**/*.webp"])
def test_folders_that_link_to_each_other_end(folder, pattern):
    expected = names(os.path.join(folder, pattern))
    for link, target in (("loop", "."), ("sub/up", ".."), ("sub/self", "."), ("more", "sub")):
        (folder / link).symlink_to(target)
    found = find_images([os.path.join(folder, pattern)]).paths
    if pattern == "sub/**":  # from where a link leads to all
        expected = ["c.webp", *(f"up/{name}" for name in ALL[:3])]
    assert sorted(found) == sorted(expected)


def test_a_linked_folder_is_read(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "d.png").write_bytes(b"")
    (folder / "linked").symlink_to(elsewhere)
    assert names(str(folder)) == [*ALL[:3], "linked/d.png", ALL[3]]


def test_links_that_lead_nowhere_are_told(folder):
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "gone").symlink_to("nowhere")
    assert "gone.png" in names(str(folder)) and "gone.png" in names(f"{folder}/*.png")
    # As a shell names them, beside what is there.
    assert names(*(str(folder / n) for n in ("b.png", "gone.png", "gone"))) == [
        "b.png",
        "gone.png",
        "gone",
    ]


def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch):
    def scandir(path, scan=os.scandir):
        if path.endswith("sub"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError, match="sub"):
        find_images([str(folder)])


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
    write_video(path, [np.full((16, 32, 3), value, np.uint8) for value in (0, 100, 200)])
    assert is_video(path) and is_video("camera:0") and not is_video("a.png")
    video = Video(path)
    assert (video.name, video.fps, video.num_frames) == ("clip", 10, 3)
    names, frames = zip(*video, strict=True)
    assert names == ("clip_000000", "clip_000001", "clip_000002")
    assert [f.shape for f in frames] == [(16, 32, 3)] * 3
    assert [round(f.mean() / 100) for f in frames] == [0, 1, 2]

    video = Video(path)
    video.num_frames = 2  # too low, as a container's estimate can be
    assert len(list(video)) == 3 and video.fault() == ""
    video.num_frames = 4  # headers may be wrong by a frame
    assert video.fault() == ""
    video.num_frames = 5
    assert video.fault().startswith("3 of 5 frames can be read")


def test_a_video_without_a_frame_is_told(tmp_path):
    write_video(path := tmp_path / "clip.avi", BLACK)
    video = Video(str(path))
    video.num_frames = None  # as of a stream
    assert video.fault() == "no frame can be read"
    assert len(list(video)) == 3 and video.fault() == ""


def test_a_colon_in_a_relative_name_is_no_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", BLACK, "mp4v")
    os.rename("clip.mp4", "12:30.mp4")
    assert len(list(Video("12:30.mp4"))) == 3


def write_noise(path, codec, frames=60):
    shape = frames, 48, 64, 3
    write_video(path, np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), codec)


@pytest.mark.parametrize(("suffix", "codec"), [("avi", "MJPG"), ("mp4", "mp4v"), ("mkv", "mp4v")])
def test_a_torn_video_is_told(tmp_path, suffix, codec):
    write_noise(path := tmp_path / f"clip.{suffix}", codec)
    whole = Video(str(path))
    assert len(list(whole)) == 60 and whole.fault() == ""
    data = bytearray(path.read_bytes())
    if suffix == "mp4":  # its index comes last
        data[len(data) // 2 : -4000] = bytes(len(data) - 4000 - len(data) // 2)
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)
    torn = Video(str(path))
    count = len(list(torn))
    assert 10 < count < 50
    assert torn.fault().startswith(f"{count} of 60 frames can be read: the file is torn")


def test_the_length_of_a_video_that_is_guessed(tmp_path):
    """Fewer frames than its rate makes expect, but to its end."""
    write_noise(path := tmp_path / "clip.mkv", "mp4v")
    video = Video(str(path))
    video.num_frames, video.fps = 120, 20
    list(video)
    assert video.fault() == ""


def test_a_video_whose_name_is_no_utf8(tmp_path):
    with pytest.raises(InputError, match="OpenCV takes no name that is not UTF-8: rename it"):
        Video(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.avi"))


def test_a_video_or_camera_that_cannot_be_opened(tmp_path):
    (tmp_path / "torn.mp4").write_bytes(b"no video")
    for source, message in (
        (str(tmp_path / "torn.mp4"), r"torn\.mp4: OpenCV cannot open it"),
        ("camera:99", "camera:99: OpenCV cannot open it: is it connected"),
        ("camera:front", "camera:front: a camera is named by its number"),
    ):
        with pytest.raises(InputError, match=message):
            Video(source)
