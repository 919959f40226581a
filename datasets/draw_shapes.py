#!/usr/bin/env python3
"""
Draw a small object-detection data set in the layout of PASCAL VOC, in seconds and offline.

    python datasets/draw_shapes.py --root datasets/Shapes --train 600 --test 100 --size 160 --seed 0

Six classes of irregular, textured objects (crescent, star, boomerang, ring, arrow, serpent) lie on
natural-looking backgrounds. Much of each bounding box is background or a neighbour, so the IoU
with an anchor says little about where the object is: the case for which Mutual Guidance was made.
Boxes are tight around the *visible* mask of an object: what neighbours cover and what lies outside
the image does not count. Image ``i`` depends on the seed, ``i`` and the size only, not on how many
images are drawn. Lengths below are in pixels or shares of a side, colours RGB in 0..1.
"""

from __future__ import annotations

import colorsys
import json
import os
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from mutual_guidance.arguments import Parser
from mutual_guidance.errors import InputError, run_main

OBJECT_SIDE = (0.2, 0.56)  # longer side of the unclipped box, as a share of the image's
MIN_VISIBLE = 0.55  # share of its own pixels that every object keeps
MIN_INSIDE = 0.75  # share of its own pixels that the image border leaves
MIN_IMAGE_SIDE = 64  # below it the smallest objects are specks
SUPERSAMPLING = 2  # scenes are painted at twice the output size, then averaged
PALETTES = (  # 0..255, dark to light
    ((74, 56, 40), (134, 106, 76), (190, 164, 124)),  # earth
    ((98, 132, 170), (158, 184, 206), (222, 226, 226)),  # sky
    ((34, 50, 28), (74, 96, 48), (138, 146, 86)),  # foliage
    ((64, 64, 66), (114, 112, 108), (170, 166, 158)),  # rock
    ((30, 56, 70), (62, 98, 110), (128, 156, 156)),  # water
    ((150, 128, 96), (196, 176, 138), (226, 212, 182)),  # sand
)
MARKER = "dataset.json"
MADE_BY = "draw_shapes.py"
VERSION = 1  # raise it when the code draws other pixels from the same parameters


class PlacedObject(NamedTuple):
    """An object as if it were alone; XY, ``radius`` is half its longer side."""

    class_id: int
    center: np.ndarray  # (2,)
    radius: float
    alpha: np.ndarray  # (SUPERSAMPLING * size,) * 2 float32 coverage in 0..1
    mask: np.ndarray  # (size, size) bool
    num_pixels: int  # those outside the image included


# Outlines: closed (P, 2) polygons, even-odd filled, in units of about one half side.
def _arc(radius: float, start: float, stop: float, num: int = 40) -> np.ndarray:
    angle = np.linspace(start, stop, num)
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def crescent(rng: Generator) -> list[np.ndarray]:
    """A disc out of which an off-centre disc was bitten; the tips are where both circles meet."""
    tip = rng.uniform(0.6, 0.95)
    center = rng.uniform(0.3, 0.45)
    dx, dy = np.cos(tip) - center, np.sin(tip)
    inner_tip = np.arctan2(dy, dx)
    outer = _arc(1.0, tip, 2 * np.pi - tip)
    inner = _arc(np.hypot(dx, dy), 2 * np.pi - inner_tip, inner_tip) + (center, 0.0)
    return [np.concatenate([outer, inner])]


def star(rng: Generator) -> list[np.ndarray]:
    """Five points, the notches at 0.36 to 0.46 of the outer radius."""
    angle = np.arange(10) * np.pi / 5
    radius = np.where(np.arange(10) % 2 == 0, 1.0, rng.uniform(0.36, 0.46))
    return [radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)]


def boomerang(rng: Generator) -> list[np.ndarray]:
    """An L of two arms, sheared so that they meet at 70 to 110 degrees."""
    width, length = rng.uniform(0.4, 0.6), rng.uniform(1.5, 2.0)
    corners = [(0, 0), (2, 0), (2, width), (width, width), (width, length), (0, length)]
    points = np.array(corners, dtype=np.float64)
    points[:, 0] += rng.uniform(-0.36, 0.36) * points[:, 1]
    return [points]


def ring(rng: Generator) -> list[np.ndarray]:
    """A disc with a round hole of half its size or a little more."""
    return [_arc(1.0, 0, 2 * np.pi), _arc(rng.uniform(0.5, 0.66), 0, 2 * np.pi)]


def arrow(rng: Generator) -> list[np.ndarray]:
    """A shaft and a triangular head."""
    shaft, head = rng.uniform(0.15, 0.22), rng.uniform(0.55, 0.7)
    neck = rng.uniform(0.0, 0.25)
    upper = [(-1, shaft), (neck, shaft), (neck, head), (1, 0)]
    lower = [(x, -y) for x, y in upper[-2::-1]]
    return [np.array(upper + lower, dtype=np.float64)]


def serpent(rng: Generator) -> list[np.ndarray]:
    """A thick meander (its heading is a sine of the arc length) that tapers towards the tail."""
    s = np.linspace(0, 1, 60)
    phase = rng.choice([0.0, np.pi]) + rng.uniform(-0.3, 0.3)
    heading = rng.uniform(1.1, 1.4) * np.cos(2 * np.pi * rng.uniform(1.2, 1.5) * s + phase)
    tangent = np.stack([np.cos(heading), np.sin(heading)], axis=1)
    spine = np.cumsum(tangent, axis=0) / len(s)
    normal = tangent[:, ::-1] * (-1, 1)
    # The meander bends with a radius of about 0.09, so a thinner half width never folds over.
    width = rng.uniform(0.055, 0.07) * (1 - 0.5 * s) * np.minimum(1, np.sqrt(s / 0.06 + 0.1))
    left, right = spine + width[:, None] * normal, spine - width[:, None] * normal
    return [2 * np.concatenate([left, right[::-1]])]


OUTLINES = (crescent, star, boomerang, ring, arrow, serpent)
CLASS_NAMES = tuple(outline.__name__ for outline in OUTLINES)


def _subdivide(polygon: np.ndarray, pieces: int = 6) -> np.ndarray:
    """Cut every edge into equal pieces, so that it can bend."""
    t = np.arange(pieces)[:, None] / pieces
    following = np.roll(polygon, -1, axis=0)
    return (polygon[:, None] * (1 - t) + following[:, None] * t).reshape(-1, 2)


def _rotation(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def draw_outline(rng: Generator, class_id: int, side: float) -> list[np.ndarray]:
    """A bent, squeezed and rotated outline, its box centred on 0 and ``side`` pixels long."""
    polygons = [_subdivide(p) for p in OUTLINES[class_id](rng)]
    squeeze = np.diag([1.0, rng.uniform(0.65, 1.0)])
    turn, pose = _rotation(rng.uniform(0, 2 * np.pi)), _rotation(rng.uniform(0, 2 * np.pi))
    matrix = turn @ squeeze @ pose
    frequency, phase = rng.normal(0, 2.2, (2, 2)), rng.uniform(0, 2 * np.pi, 2)
    polygons = [(p + 0.05 * np.sin(p @ frequency + phase)) @ matrix for p in polygons]
    corners = np.concatenate(polygons)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return [(p - (low + high) / 2) * (side / (high - low).max()) for p in polygons]


# Placement, from back to front.
def _coverage(polygons: list[np.ndarray], side: int) -> np.ndarray:
    """Of polygons on a square of ``side`` pixels, (SUPERSAMPLING * side,) * 2 uint8."""
    # cv2.fillPoly also fills the pixels under the outline, antialiased even more of them. Filling
    # twice as finely and averaging halves that margin and keeps smooth edges.
    fine, bits = 2 * SUPERSAMPLING, 4
    fixed = [((p * fine - 0.5) * 2**bits).round().astype(np.int32) for p in polygons]
    stencil = np.zeros((side * fine, side * fine), dtype=np.uint8)
    cv2.fillPoly(stencil, fixed, 255, shift=bits)
    return cv2.resize(stencil, (side * SUPERSAMPLING,) * 2, interpolation=cv2.INTER_AREA)


def place(
    polygons: list[np.ndarray], class_id: int, center: np.ndarray, radius: float, size: int
) -> PlacedObject:
    """Put an outline at ``center`` (XY, pixels) of a square image of ``size`` pixels."""
    # A margin around the image shows how much of the object the border cuts off.
    margin = int(np.ceil(OBJECT_SIDE[1] * size / 2)) + 2
    side = size + 2 * margin
    coverage = _coverage([p + center + margin for p in polygons], side)
    mask = cv2.resize(coverage, (side, side), interpolation=cv2.INTER_AREA) >= 128
    inner = slice(margin, margin + size)
    fine = slice(margin * SUPERSAMPLING, (margin + size) * SUPERSAMPLING)
    alpha = coverage[fine, fine].astype(np.float32) / 255
    return PlacedObject(class_id, center, radius, alpha, mask[inner, inner], int(mask.sum()))


def _propose_center(
    rng: Generator, objects: list[PlacedObject], radius: float, size: int
) -> np.ndarray:
    """Against a random earlier object, or anywhere in the image."""
    anywhere = rng.uniform(0, size, 2)
    if not objects or rng.random() > 0.6:
        return anywhere
    neighbour = objects[rng.integers(len(objects))]
    angle, tightness = rng.uniform(0, 2 * np.pi), rng.uniform(0.55, 0.95)
    step = tightness * (radius + neighbour.radius)
    return np.clip(neighbour.center + step * np.array([np.cos(angle), np.sin(angle)]), 0, size)


def visible_masks(objects: list[PlacedObject]) -> np.ndarray:
    """The (N, size, size) bool masks left after later objects cover earlier ones."""
    masks = np.stack([o.mask for o in objects])
    covered = np.zeros_like(masks[0])
    for mask in masks[::-1]:
        hidden = covered.copy()
        covered |= mask
        mask &= ~hidden
    return masks


def fits(objects: list[PlacedObject]) -> bool:
    """Whether the last object is inside enough and all are visible enough."""
    last = objects[-1]
    if last.mask.sum() < MIN_INSIDE * last.num_pixels:
        return False
    visible = visible_masks(objects).sum(axis=(1, 2))
    return all(v >= MIN_VISIBLE * o.num_pixels for v, o in zip(visible, objects, strict=True))


def place_objects(rng: Generator, size: int) -> list[PlacedObject]:
    """One to five objects; one that fits nowhere in twelve tries is left out."""
    objects: list[PlacedObject] = []
    for _ in range(rng.integers(1, 6)):
        class_id = int(rng.integers(len(CLASS_NAMES)))
        # Log-uniform: as many small objects as large ones, octave by octave.
        side = float(np.exp(rng.uniform(*np.log(OBJECT_SIDE)))) * size
        polygons = draw_outline(rng, class_id, side)
        for _ in range(12):
            center = _propose_center(rng, objects, side / 2, size)
            candidate = place(polygons, class_id, center, side / 2, size)
            if fits([*objects, candidate]):
                objects.append(candidate)
                break
    # A lone object fails only by bad luck with the border; its next draw differs.
    return objects or place_objects(rng, size)


# Painting: float32 RGB in 0..1, at SUPERSAMPLING times the output size.
def _smooth_noise(rng: Generator, height: int, width: int, cells: int, octaves: int) -> np.ndarray:
    """Multi-octave value noise, (height, width) float32 in 0..1; ``cells`` across, doubling."""
    total = np.zeros((height, width), dtype=np.float32)
    for octave in range(octaves):
        grid = rng.random((cells * 2**octave + 1,) * 2, dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    return cv2.normalize(total, None, 0, 1, cv2.NORM_MINMAX)


def _ramp(height: int, width: int, angle: float) -> np.ndarray:
    """A linear ramp across the image along ``angle`` (radians), roughly -1..1."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    return np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y


def _mix(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Blend two RGB images or colours by an (H, W) weight of ``b``."""
    return a + (b - a) * weight[..., None]


def _palette(rng: Generator) -> np.ndarray:
    return np.array(PALETTES[rng.integers(len(PALETTES))], dtype=np.float32) / 255


def _paint_ground(rng: Generator, side: int) -> np.ndarray:
    """One palette spread over smooth noise and a soft gradient."""
    colors = _palette(rng)
    height = _smooth_noise(rng, side, side, int(rng.integers(2, 5)), octaves=6)
    height += 0.2 * _ramp(side, side, rng.uniform(0, 2 * np.pi))
    level = np.clip(0.5 + 0.8 * (height - 0.5), 0, 1)
    dark = _mix(colors[0], colors[1], np.clip(2 * level, 0, 1))
    return _mix(dark, colors[2], np.clip(2 * level - 1, 0, 1))


def paint_background(rng: Generator, side: int) -> np.ndarray:
    """One or two grounds that meet along an uneven, soft border, with clutter."""
    scene = _paint_ground(rng, side)
    if rng.random() < 0.5:
        border = _ramp(side, side, rng.normal(np.pi / 2, 0.3)) + rng.uniform(-0.5, 0.5)
        border += _smooth_noise(rng, side, side, 3, octaves=4) - 0.5
        weight = 1 / (1 + np.exp(-border * rng.uniform(6, 30)))
        scene = _mix(scene, _paint_ground(rng, side), weight.astype(np.float32))
    for _ in range(rng.integers(6, 19)):
        _paint_clutter(rng, scene)
    return scene


def _paint_clutter(rng: Generator, scene: np.ndarray) -> None:
    """A blob (pebble, patch of light) or a bent line (twig, blade of grass), in place."""
    side = scene.shape[0]
    stencil = np.zeros((side, side), dtype=np.uint8)
    start = rng.uniform(0, side, 2)
    if rng.random() < 0.5:
        axes = rng.uniform(0.01, 0.08, 2) * side
        angle = rng.uniform(0, 360)
        cv2.ellipse(stencil, (tuple(start), tuple(2 * axes), angle), 255, -1, cv2.LINE_AA)
        softness = rng.uniform(0.5, 6)
    else:
        t = np.linspace(0, 1, 12)[:, None]
        step, bend = rng.normal(0, 0.2 * side, (2, 2))
        points = (start + step * t + bend * t**2).round().astype(np.int32)
        cv2.polylines(stencil, [points], False, 255, int(rng.integers(1, 5)), cv2.LINE_AA)
        softness = rng.uniform(0.5, 1.5)
    stencil = cv2.GaussianBlur(stencil, (0, 0), softness)
    color = _palette(rng)[rng.integers(3)]
    opacity = np.float32(0.65 * rng.uniform(0.4, 1) / 255)
    x, y, w, h = cv2.boundingRect(stencil)
    region = scene[y : y + h, x : x + w]
    region[:] = _mix(region, color, stencil[y : y + h, x : x + w] * opacity)


def _pattern(rng: Generator, height: int, width: int, period: float) -> np.ndarray:
    """Noise, a gradient, stripes or dots, (height, width) float32 in -1..1; period in pixels."""
    kind = rng.integers(4)
    angle = rng.uniform(0, np.pi)
    if kind == 0:
        cells = max(2, int(max(height, width) / period))
        return 2 * _smooth_noise(rng, height, width, cells, octaves=3) - 1
    if kind == 1:
        return np.clip(_ramp(height, width, 2 * angle), -1, 1)
    y, x = np.mgrid[:height, :width].astype(np.float32) * np.float32(2 * np.pi / period)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    waves = np.sin(cos * x + sin * y)
    if kind == 2:
        return np.clip(2.5 * waves, -1, 1)
    return np.clip(4 * (waves * np.sin(cos * y - sin * x) - 0.3), -1, 1)


def _skin(rng: Generator, class_id: int, height: int, width: int, period: float) -> np.ndarray:
    """(height, width, 3): a pattern around a colour of the class's hue family."""
    hue = (360 * class_id / len(CLASS_NAMES) + rng.normal(0, 10.0)) / 360
    rng.random()  # was an option; without it all that follows would be drawn otherwise
    saturation, value = rng.uniform(0.45, 0.85), rng.uniform(0.5, 0.95)
    color = np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), dtype=np.float32)
    # The pattern alternates between a darker and a paler version of the one colour.
    dark, pale = color * (1 - 0.4), color + 0.4 * (1 - color)
    pattern = _pattern(rng, height, width, period)
    pattern = np.clip(pattern + rng.normal(0, 0.1), -1, 1)
    return _mix(dark, pale, (pattern + 1) / 2)


def _bevel(alpha: np.ndarray, radius: float) -> np.ndarray:
    """Light from the upper left on a rounded (H, W) coverage, about -1..1."""
    relief = cv2.GaussianBlur(alpha, (0, 0), max(1.0, 0.08 * radius))
    slope = cv2.Sobel(relief, cv2.CV_32F, 1, 0) + cv2.Sobel(relief, cv2.CV_32F, 0, 1)
    return slope / (np.abs(slope).max() + 1e-6)


def paint_object(rng: Generator, scene: np.ndarray, placed: PlacedObject) -> None:
    """Paint the cast shadow and the object into the scene, in place."""
    radius = placed.radius * SUPERSAMPLING
    reach = int(0.25 * radius) + 8  # the shadow ends within it
    x, y, w, h = cv2.boundingRect((placed.alpha > 0).astype(np.uint8))
    rows, cols = slice(max(0, y - reach), y + h + reach), slice(max(0, x - reach), x + w + reach)
    alpha, region = placed.alpha[rows, cols], scene[rows, cols]
    height, width = alpha.shape

    offset = rng.uniform(0.02, 0.1) * radius + 1
    move = np.array([[1, 0, offset], [0, 1, offset]], dtype=np.float32)
    shadow = cv2.warpAffine(alpha, move, (width, height))
    shadow = cv2.GaussianBlur(shadow, (0, 0), 0.04 * radius + 1)
    region *= 1 - 0.45 * shadow[..., None]

    period = max(6.0, rng.uniform(0.2, 0.45) * radius)
    skin = _skin(rng, placed.class_id, height, width, period)
    skin = np.clip(skin + 0.3 * _bevel(alpha, radius)[..., None], 0, 1)
    soft = cv2.GaussianBlur(alpha, (0, 0), 0.8)
    region[:] = _mix(region, skin, soft)


def expose(rng: Generator, scene: np.ndarray, size: int) -> np.ndarray:
    """Average down to (size, size, 3) uint8, with a slight blur, gain and sensor noise."""
    image = cv2.resize(scene, (size, size), interpolation=cv2.INTER_AREA)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.25, 0.7))
    image *= np.float32(rng.uniform(0.85, 1.1))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += np.float32(rng.uniform(0.008, 0.025)) * noise
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def draw_sample(
    index: int, size: int = 160, seed: int = 0
) -> tuple[np.ndarray, list[PlacedObject]]:
    """Image ``index`` of the data set of ``seed``, (size, size, 3) uint8, and its objects."""
    rng = np.random.default_rng([seed, index])
    objects = place_objects(rng, size)
    scene = paint_background(rng, size * SUPERSAMPLING)
    for placed in objects:
        paint_object(rng, scene, placed)
    return expose(rng, scene, size), objects


# The data set on disk.
def tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """The 1-based, inclusive XYXY box of an (H, W) bool mask with at least one pixel."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x + 1, y + 1, x + width, y + height


def _add(parent: ET.Element, **children: object) -> None:
    """Append one text element per keyword."""
    for tag, value in children.items():
        ET.SubElement(parent, tag).text = str(value)


def annotation_xml(objects: list[PlacedObject], size: int, name: str) -> str:
    """The VOC annotation of the image ``name``.jpg."""
    root = ET.Element("annotation")
    _add(root, folder="JPEGImages", filename=f"{name}.jpg")
    _add(ET.SubElement(root, "size"), width=size, height=size, depth=3)
    _add(root, segmented=0)
    for placed, mask in zip(objects, visible_masks(objects), strict=True):
        cut = int(placed.mask.sum() < placed.num_pixels)
        node = ET.SubElement(root, "object")
        _add(node, name=CLASS_NAMES[placed.class_id], pose="Unspecified", truncated=cut)
        _add(node, difficult=0)
        corners = zip(("xmin", "ymin", "xmax", "ymax"), tight_box(mask), strict=True)
        _add(ET.SubElement(node, "bndbox"), **dict(corners))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def read_marker(root: Path) -> dict[str, object] | None:
    """The ``dataset.json`` that this script left in ``root``; None without one."""
    try:
        marker = json.loads((root / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) and marker.get("made_by") == MADE_BY else None


def is_complete(root: Path, description: dict[str, object]) -> bool:
    """Whether ``root`` holds the described data set with every file in its place."""
    marker = read_marker(root) or {}
    if any(marker.get(key) != value for key, value in description.items()):
        return False
    total = int(description["train"]) + int(description["test"])
    counts = (len(list(root.glob(p))) for p in ("JPEGImages/*.jpg", "Annotations/*.xml"))
    splits = (root / "ImageSets" / "Main" / f"{split}.txt" for split in ("train", "test"))
    return all(count == total for count in counts) and all(path.is_file() for path in splits)


def _refuse_foreign(root: Path) -> None:
    """Raise FileExistsError if ``root`` is neither absent, nor empty, nor made by this script."""
    free = not root.exists() or (root.is_dir() and not any(root.iterdir()))
    if not free and read_marker(root) is None:
        raise FileExistsError(
            f"{root} exists but was not made by {MADE_BY} (it has no {MARKER} of its own): "
            "move it away or choose another --root"
        )


def _write_dataset(folder: Path, description: dict[str, object]) -> None:
    """Draw every image of a described data set into a new ``folder``."""
    train, test, size, seed = (int(description[k]) for k in ("train", "test", "size", "seed"))
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    names = [f"{index:06d}" for index in range(1, train + test + 1)]
    for name in tqdm(names, desc="Drawing shapes", unit="image", disable=None):
        image, objects = draw_sample(int(name), size, seed)
        path = folder / "JPEGImages" / f"{name}.jpg"
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if not cv2.imwrite(str(path), bgr, [cv2.IMWRITE_JPEG_QUALITY, 92]):
            raise OSError(f"cannot write {path}")
        xml = annotation_xml(objects, size, name)
        (folder / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
    for split, members in (("train", names[:train]), ("test", names[train:])):
        text = "".join(f"{name}\n" for name in members)
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text(text, encoding="utf-8")
    (folder / MARKER).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def draw_dataset(
    root: str | Path, train: int = 600, test: int = 100, size: int = 160, seed: int = 0
) -> bool:
    """
    Make sure that ``root`` holds the data set with these parameters; one that this script made with
    others is replaced. The test images follow the train images.

    Returns:
        Whether it was drawn; False if it was there already.

    Raises:
        FileExistsError: ``root`` holds something that this script did not make.
        InputError: a parameter is out of range.
    """
    if min(train, test, seed) < 0 or size < MIN_IMAGE_SIDE:
        raise InputError(
            f"train, test and seed must be 0 or more and size at least {MIN_IMAGE_SIDE}, "
            f"got train={train}, test={test}, seed={seed}, size={size}"
        )
    root = Path(root).resolve()
    parameters = {"train": train, "test": test, "size": size, "seed": seed}
    description = {"made_by": MADE_BY, "version": VERSION, **parameters}
    if is_complete(root, description):
        return False
    _refuse_foreign(root)
    partial, old = (root.with_name(f".{root.name}.{suffix}") for suffix in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    _write_dataset(partial, description)
    # Renames only: whenever this is interrupted, root is a whole data set or absent.
    if root.exists():
        root.rename(old)
    partial.rename(root)
    shutil.rmtree(old, ignore_errors=True)
    return True


def main(argv: list[str] | None = None) -> None:
    parser = Parser(__doc__)
    root = Path(os.getenv("DETECTRON2_DATASETS", "datasets"), "Shapes").expanduser()
    parser.add_argument("--root", type=Path, default=root, help="output folder")
    parser.add_argument("--train", type=int, default=600, help="number of training images")
    parser.add_argument("--test", type=int, default=100, help="number of test images")
    parser.add_argument("--size", type=int, default=160, help="side of the images, pixels")
    parser.add_argument("--seed", type=int, default=0, help="seed of all randomness")
    args = parser.parse_args(argv)
    interrupted = "Interrupted: give the same command again to draw it"
    parameters = (args.root, args.train, args.test, args.size, args.seed)
    drawn = run_main(draw_dataset, *parameters, interrupted=interrupted)
    print(f"{args.root}: {'drawn' if drawn else 'already there'}")


if __name__ == "__main__":
    main()
