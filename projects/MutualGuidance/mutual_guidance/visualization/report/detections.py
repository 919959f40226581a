"""The page's part on what the runs found: counts, precision and recall, confusion, pictures."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ...data.images import read_image
from ...evaluation.matching import Curve, confusion, disagreement, precision_recall, quality
from ...figures import png_of
from ..detections import draw_comparison
from . import figures
from .files import jpeg_uri
from .found import Found
from .runs import Run

# Pictures of a kind; classes of a chart or of the confusion, the others being summed up.
_PICTURES = 6
_MOST_CLASSES = 12


class Picture(NamedTuple):
    """An image with its ground truth and its detections."""

    name: str
    caption: str
    uri: str


@dataclass
class Confusion:
    """Counts of objects: a row a class of the ground truth, a column what it was found as."""

    names: list[str]  # with the background at the end
    num_single: int  # rows of one class each, before that of the others and the background
    rows: list[list[tuple[int, float]]]  # count, and its share of the row


@dataclass
class OfRun:
    """What one run found."""

    label: str
    sentence: str
    charts: list[tuple[str, str]]
    confusion: Confusion


@dataclass
class Detections:
    """On one data set."""

    dataset: str
    runs: list[OfRun]
    pictures: dict[str, list[Picture]]  # by what they show


def detections(runs: list[Run]) -> list[Detections]:
    """Of each data set that a run was evaluated on; what cannot be drawn becomes a trouble."""
    made = []
    for dataset in dict.fromkeys(name for run in runs for name in run.found):
        found = {run.label: run.found[dataset] for run in runs if dataset in run.found}
        curves = {label: precision_recall(f.matches, f.gts) for label, f in found.items()}
        of_runs = [_of_run(label, f, curves[label]) for label, f in found.items()]
        scores = {label: curve.best_f1()[0] for label, curve in curves.items()}
        made.append(Detections(dataset, of_runs, {}))
        try:
            made[-1].pictures = _pictures(found, scores)
        except (OSError, ValueError) as error:
            sentence = f"the images of {dataset} cannot be drawn: {error}"
            next(r for r in runs if dataset in r.found).troubles.append(("detections", sentence))
    return made


def _of_run(label: str, found: Found, curve: Curve) -> OfRun:
    score, f1 = curve.best_f1()
    above = [matched.above(score) for matched in found.matches]
    counts = confusion(above, found.gts, len(found.classes))
    objects = int(counts[:-1].sum())
    true = int(np.trace(counts[:-1, :-1]))
    false = int(counts[:, :-1].sum()) - true
    sentence = (
        f"Precision and recall balance best (F1 {f1:.2f}) at a score of {score:.2f}: with it "
        f"{true} of {objects} objects are found, and {false} detections are false."
    )
    of_class = {
        name: precision_recall(found.matches, found.gts, c)
        for c, name in enumerate(found.classes)
        if len(found.classes) <= _MOST_CLASSES
    }
    lines = {n: (c.recall, c.precision) for n, c in (of_class or {"all classes": curve}).items()}
    charts = [
        ("Precision over recall at IoU 0.5", figures.lines(lines, "recall", "precision")),
        ("Over the least score that counts, all classes", _over_scores(curve, score)),
    ]
    return OfRun(label, sentence, charts, _confusion_table(counts, found.classes))


def _over_scores(curve: Curve, best: float) -> str:
    lines = {"precision": curve.precision, "recall": curve.recall}
    named = {name: (curve.scores, values) for name, values in lines.items()}
    return figures.lines(named, "least score", "", mark=best)


def _confusion_table(counts: np.ndarray, classes: list[str]) -> Confusion:
    """Of many classes those with the most mistakes, the others together."""
    names, num_single = [*classes, "background"], len(classes)
    if len(classes) > _MOST_CLASSES:
        mistakes = (counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal())[:-1]
        shown = np.sort(np.argsort(-mistakes, kind="stable")[: _MOST_CLASSES - 1])
        groups = [[c] for c in shown]
        groups += [np.setdiff1d(np.arange(len(classes)), shown).tolist(), [len(classes)]]
        counts = np.array([[counts[np.ix_(a, b)].sum() for b in groups] for a in groups])
        names = [*(classes[c] for c in shown), "other classes", "background"]
        num_single = len(shown)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    pairs = zip(counts.tolist(), shares.tolist(), strict=True)
    return Confusion(names, num_single, [list(zip(*pair, strict=True)) for pair in pairs])


def _pictures(found: dict[str, Found], scores: dict[str, float]) -> dict[str, list[Picture]]:
    """The worst and the best images of a run; of several those on which they differ most."""
    first = next(iter(found.values()))
    if any((f.files, f.classes) != (first.files, first.classes) for f in found.values()):
        raise ValueError("the runs name other files or classes of it, so report on each alone")
    models = [
        {label: f.matches[i].above(scores[label]) for label, f in found.items()}
        for i in range(len(first.files))
    ]

    def draw(order: list[int], caption: Callable[[int], str]) -> list[Picture]:
        return [_picture(first, i, models[i], caption(i)) for i in order[:_PICTURES]]

    if len(found) > 1:
        values = [disagreement(list(m.values()), g) for m, g in zip(models, first.gts, strict=True)]
        order = sorted(range(len(values)), key=lambda i: -values[i])
        return {
            "where the runs differ most": draw(order, lambda i: f"disagreement {values[i]:.2f}")
        }
    (label,) = found
    values = [quality(m[label], g) for m, g in zip(models, first.gts, strict=True)]
    sizes = [len(g.boxes) for g in first.gts]
    order = [i for i in range(len(values)) if not np.isnan(values[i])]
    # Of equal ones those with more objects show more.
    worst = sorted(order, key=lambda i: (values[i], -sizes[i]))[: (len(order) + 1) // 2]
    best = sorted(set(order).difference(worst), key=lambda i: (-values[i], -sizes[i]))
    text = "quality {:.2f}".format
    return {
        "worst images": draw(worst, lambda i: text(values[i])),
        "best images": draw(best, lambda i: text(values[i])),
    }


def _picture(found: Found, i: int, models: dict, caption: str) -> Picture:
    try:
        pixels = read_image(found.files[i])[:, :, ::-1]
    except ValueError as error:
        raise ValueError(f"{found.files[i]}: {error}") from error
    figure = draw_comparison(pixels, found.gts[i], models, found.classes)
    image = Image.open(io.BytesIO(png_of(figure)))
    return Picture(Path(found.files[i]).name, caption, jpeg_uri(image))
