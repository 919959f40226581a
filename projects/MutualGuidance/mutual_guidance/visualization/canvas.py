"""
Drawing on images with Pillow: marks, panels and legends.

Boxes are XYXY in pixels of the picture, tensors (D, 4).
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont
from torch import Tensor

Color = tuple[int, int, int]
MARKS: tuple[Color, ...] = ((255, 255, 255), (255, 60, 60), (0, 230, 60), (255, 225, 0))
WHITE, RED, GREEN, YELLOW = MARKS
_BACKGROUND: Color = (28, 28, 30)

SHORT_SIDE = 512  # of a panel, pixels
_BRIGHTNESS = 0.65  # of the image below the marks
_LINE_WIDTH = 2
_DASH, _GAP = 9, 7
_POINT_RADIUS = 4
_FONT_SIZE, _ROW_HEIGHT, _MARGIN, _SWATCH = 15, 23, 12, 24


class Panel(NamedTuple):
    """An image with a caption above and a legend below."""

    caption: str
    image: Image.Image
    legend: Sequence[tuple[Color | None, str]]  # a colour, if it is drawn, and what it means


def enlarge(pixels: np.ndarray) -> tuple[Image.Image, float]:
    """The image (H, W, 3), darker and with a short side of 512, and the factor of its size."""
    height, width = pixels.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    image = Image.fromarray(pixels).resize(
        (round(width * scale), round(height * scale)), Image.Resampling.BICUBIC
    )
    return ImageEnhance.Brightness(image).enhance(_BRIGHTNESS), scale


def draw_boxes(draw: ImageDraw.ImageDraw, boxes: Tensor, color: Color) -> None:
    """Outlines."""
    for box in boxes.round().int().tolist():
        draw.rectangle(box, outline=color, width=_LINE_WIDTH)


def draw_points(draw: ImageDraw.ImageDraw, boxes: Tensor, color: Color) -> None:
    """Dots at the centres of the boxes."""
    for x0, y0, x1, y1 in boxes.tolist():
        x, y = round((x0 + x1) / 2), round((y0 + y1) / 2)
        corners = (x - _POINT_RADIUS, y - _POINT_RADIUS, x + _POINT_RADIUS, y + _POINT_RADIUS)
        draw.ellipse(corners, fill=color, outline=(0, 0, 0))


def draw_dashed_boxes(draw: ImageDraw.ImageDraw, boxes: Tensor, color: Color) -> None:
    """Dashed outlines, on the inner side of the boxes."""
    inner = _LINE_WIDTH - 1
    for x0, y0, x1, y1 in boxes.round().int().tolist():
        for x in range(x0, x1, _DASH + _GAP):
            end = min(x + _DASH, x1)
            draw.rectangle((x, y0, end, y0 + inner), fill=color)
            draw.rectangle((x, y1 - inner, end, y1), fill=color)
        for y in range(y0, y1, _DASH + _GAP):
            end = min(y + _DASH, y1)
            draw.rectangle((x0, y, x0 + inner, end), fill=color)
            draw.rectangle((x1 - inner, y, x1, end), fill=color)


def compose(title: str, panels: Sequence[Panel]) -> Image.Image:
    """The panels side by side below a title."""
    rows = max(len(panel.legend) for panel in panels)
    top = _MARGIN + 2 * _ROW_HEIGHT
    image_height = max(panel.image.height for panel in panels)
    width = sum(panel.image.width + _MARGIN for panel in panels) + _MARGIN
    height = top + image_height + _MARGIN + rows * _ROW_HEIGHT + _MARGIN
    picture = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    _text(draw, _MARGIN, _MARGIN, title)
    left = _MARGIN
    for panel in panels:
        _text(draw, left, _MARGIN + _ROW_HEIGHT, panel.caption)
        picture.paste(panel.image, (left, top))
        _draw_legend(draw, left, top + image_height + _MARGIN, panel.legend)
        left += panel.image.width + _MARGIN
    return picture


def _draw_legend(
    draw: ImageDraw.ImageDraw, left: int, top: int, legend: Sequence[tuple[Color | None, str]]
) -> None:
    for i, (color, text) in enumerate(legend):
        y = top + i * _ROW_HEIGHT
        if color:
            draw.rectangle((left, y + 3, left + _SWATCH - 8, y + _ROW_HEIGHT - 5), fill=color)
        _text(draw, left + _SWATCH, y, text)


def _text(draw: ImageDraw.ImageDraw, x: int, y: int, text: str) -> None:
    draw.text((x, y), text, fill=WHITE, font=_font())


@cache
def _font() -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings: Pillow itself had no scalable font before 10.1."""
    return ImageFont.truetype(
        str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), _FONT_SIZE
    )
