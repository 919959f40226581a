"""Image files as they come: what is read, and what is refused with its reason."""

import os
import signal
import threading
import time

import cv2
import numpy as np
import pytest
from PIL import Image

from mutual_guidance.data import images
from mutual_guidance.data.images import (
    ImageFinder,
    image_size,
    read_image,
    size_faults,
    why_missing,
)


@pytest.fixture
def pixels():
    return np.random.randint(0, 256, (24, 40, 3), np.uint8)


def written(path, pixels):
    cv2.imwrite(str(path), pixels)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_torn_image_is_refused(tmp_path, pixels, suffix, share):
    path = tmp_path / f"a.{suffix}"
    content = written(path, pixels)
    assert image_size(str(path)) == (40, 24)
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="cannot be read, its file is torn: .*truncated"):
        image_size(str(path))


def test_whole_image_with_more_behind_it_is_fine(tmp_path, pixels):
    path = tmp_path / "a.jpg"
    path.write_bytes(written(path, pixels) + b"some camera's own data")
    assert image_size(str(path)) == (40, 24)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"not an image", "of none of the formats BMP, "),
        (b"\xff\xd8", "of none of the formats BMP, "),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", "of none of the formats"),
    ],
)
def test_what_is_no_image_is_refused_whatever_its_name(tmp_path, content, reason, monkeypatch):
    def start(*_, **__):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", start)
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (image_size, read_image):
        with pytest.raises(ValueError, match=reason):
            read(str(path))


def test_missing_image_is_refused(tmp_path):
    ((_, reason, *_),) = size_faults([(str(tmp_path / "a.jpg"), 40, 24)], "")
    assert reason == "image is missing"


@pytest.mark.parametrize(
    ("there", "asked", "reason"),
    [
        ("a.bmp", "a.jpg", "image is missing, but is there as .bmp"),
        ("A.JPG", "a.jpg", "image is missing: it is there in other capitals"),
        ("e\u0301.jpg", "\xe9.jpg", "image is missing: it is there in another Unicode form"),
        ("a.jpg", "b\\a.jpg", "image is missing: its name has a backslash"),
        ("a.jpg", "b/a.jpg", "image is missing, its folder as well"),
        ("a.txt", "a.jpg", "image is missing"),
    ],
)
def test_why_an_image_is_missing(tmp_path, there, asked, reason):
    (tmp_path / there).write_bytes(b"")
    assert why_missing(str(tmp_path / asked)).startswith(reason)
    if reason == "image is missing":
        assert why_missing(str(tmp_path / asked)) == reason


def test_a_link_that_leads_nowhere(tmp_path):
    (tmp_path / "a.jpg").symlink_to("gone.jpg")
    reason = "image is missing: it is there as a link that leads nowhere"
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read_image(str(tmp_path / "a.jpg"))


def test_a_folder_is_no_image(tmp_path):
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(ValueError, match="image is a folder"):
        read_image(str(tmp_path / "a.jpg"))


def test_grey_of_16_bits_is_refused(tmp_path):
    written(tmp_path / "a.png", np.full((24, 40), 30000, np.uint16))
    with pytest.raises(ValueError, match=r"more than 8 bits a channel \(mode I;16\)"):
        image_size(str(tmp_path / "a.png"))


def test_orientation_counts(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(str(tmp_path / "a.jpg")) == (24, 40)
    ((_, reason, detail, *_),) = size_faults([(str(tmp_path / "a.jpg"), 40, 24)], "")
    assert reason.startswith("EXIF turns this image") and detail == "image 24x40, annotation 40x24"
    ((_, reason, *_),) = size_faults([(str(tmp_path / "a.jpg"), 40, 25)], "")
    assert reason == "image is of another size than its annotation says"


def test_the_size_of_a_png_is_known_without_decoding_it(tmp_path, monkeypatch, pixels):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda image: 1 / 0)
    assert image_size(str(tmp_path / "a.png")) == (40, 24)


def test_decompression_bomb_is_refused(tmp_path, monkeypatch, pixels):
    written(tmp_path / "a.png", pixels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow refuses twice as many
    with pytest.raises(ValueError, match="more than 800 pixels: a decompression bomb"):
        image_size(str(tmp_path / "a.png"))


def test_pixels_are_turned_as_exif_says(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = (255, 0, 0)  # red, RGB, at the top left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: what was top left is top right
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(str(tmp_path / "a.png"))
    assert image.shape == (3, 2, 3) and image_size(str(tmp_path / "a.png")) == (2, 3)
    assert image[0, 1].tolist() == [0, 0, 255] and image.sum() == 255  # BGR


def test_grey_images_and_alpha_become_bgr(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((4, 5), 7, np.uint8))
    cv2.imwrite(str(tmp_path / "alpha.png"), np.full((4, 5, 4), 7, np.uint8))
    for name in ("grey.png", "alpha.png"):
        image = read_image(str(tmp_path / name))
        assert image.shape == (4, 5, 3) and (image == 7).all()


def test_what_cannot_be_read_has_a_reason(tmp_path, pixels):
    with pytest.raises(ValueError, match="image is missing"):
        read_image(str(tmp_path / "none.png"))
    path = tmp_path / "a.jpg"
    whole = written(path, pixels)
    for size in (0, 10, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="image cannot be read"):
            read_image(str(path))
    path.write_bytes(whole[:150] + bytes(len(whole) - 152) + whole[-2:])  # its end is in place
    with pytest.raises(ValueError, match="image cannot be read"):
        read_image(str(path))


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_once(tmp_path, suffix, orientation):
    # The corners tell the eight orientations apart.
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :16], upright[:8, 16:], upright[8:, :16] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = str(tmp_path / f"a.{suffix}")
    stored.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    assert image_size(path) == (32, 16) and not size_faults([(path, 32, 16)], "")
    pixels = read_image(path, "RGB")
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright)[4::8, 4::8].max() < 60


def test_finder_lists_every_suffix(tmp_path):
    (tmp_path / "s").mkdir()
    for name in ("a.jpg", "a.PNG", "a.txt", "b.c.tif", "s/d.webp", "e.gif"):
        (tmp_path / name).touch()
    find = ImageFinder(str(tmp_path))
    assert find("a") == [str(tmp_path / "a.PNG"), str(tmp_path / "a.jpg")]
    assert find("b.c") == [str(tmp_path / "b.c.tif")]
    assert find("s/d") == [str(tmp_path / "s/d.webp")] and find("e") == find("none/x") == []


def test_a_photo_with_another_in_its_file_is_not_decoded(tmp_path, monkeypatch, pixels):
    photo = Image.fromarray(pixels)
    photo.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[photo])
    monkeypatch.setattr("mutual_guidance.data.images._decode", lambda _: 1 / 0)
    assert image_size(str(tmp_path / "a.jpg")) == photo.size


def test_a_missing_file_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.bmp").touch()
    assert why_missing("a.jpg") == "image is missing, but is there as .bmp"


def test_many_images_are_waited_for_at_a_time_and_told_in_their_order(monkeypatch):
    both = threading.Barrier(2, timeout=20)

    def look(path):
        both.wait()
        raise ValueError(path)

    monkeypatch.setattr(images, "_size_and_turn", look)
    paths = [str(i) for i in range(16)]
    assert [f.reason for f in size_faults([(path, 1, 1) for path in paths], "")] == paths


def test_ctrl_c_ends_the_check_of_images(monkeypatch):
    looked = []

    def look(path):
        looked.append(path)
        if len(looked) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        raise ValueError("of no size")

    monkeypatch.setattr(images, "_size_and_turn", look)
    with pytest.raises(KeyboardInterrupt):
        size_faults([(str(i), 1, 1) for i in range(4000)], "")
    assert len(looked) < 4000
