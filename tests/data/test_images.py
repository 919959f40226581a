"""Image files as they come: what is read, and what is refused with its reason."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mutual_guidance.data.images import image_size, read_image, size_fault


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
    with pytest.raises(ValueError, match="cannot be read .*truncated"):
        image_size(str(path))


def test_whole_image_with_more_behind_it_is_fine(tmp_path, pixels):
    path = tmp_path / "a.jpg"
    path.write_bytes(written(path, pixels) + b"some camera's own data")
    assert image_size(str(path)) == (40, 24)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8"])
def test_empty_file_and_text_named_jpg_are_refused(tmp_path, content):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="empty, or of no known format"):
        image_size(str(path))


def test_missing_image_is_refused(tmp_path):
    assert size_fault(str(tmp_path / "a.jpg"), 40, 24) == "image is missing"


def test_grey_of_16_bits_is_refused(tmp_path):
    written(tmp_path / "a.png", np.full((24, 40), 30000, np.uint16))
    with pytest.raises(ValueError, match=r"more than 8 bits a channel \(mode I;16\)"):
        image_size(str(tmp_path / "a.png"))


def test_orientation_counts(tmp_path, pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(str(tmp_path / "a.jpg")) == (24, 40)
    assert "24x40, its annotation says 40x24" in size_fault(str(tmp_path / "a.jpg"), 40, 24)


def test_decompression_bomb_is_refused(tmp_path, monkeypatch, pixels):
    written(tmp_path / "a.png", pixels)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow refuses twice as many
    with pytest.raises(ValueError, match="DecompressionBombError"):
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
