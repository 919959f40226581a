"""Image files as they come: what is read, and what is refused with its reason."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mutual_guidance.data.images import image_size, size_fault


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
