"""
Intervals of average precision by drawing test images and seeds anew.

Shape symbols: N images, S seeds, D detections of a class, T IoU thresholds, B draws.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ..evaluation.pascal_voc import IOU_THRESHOLDS
from ..run_files import CLASS_AP
from .matches import Matches

DRAWS = 2000
_LEVELS = (2.5, 97.5)  # percentiles of a 95 % interval
_BATCH = 2_000_000  # numbers in the largest array
# The metrics that are means over classes, by the thresholds that they are means of.
_MEANS = {
    "AP": slice(None),
    **{f"AP{t}": np.flatnonzero(np.isclose(IOU_THRESHOLDS, t / 100)) for t in (50, 75)},
}


def average_precision(matches: Matches, weights: np.ndarray) -> np.ndarray:
    """
    Args:
        weights: (B, N) how often each draw has each image.

    Returns:
        (B, T) in percent, the area under the curve of precision and recall; NaN where a draw has no
        ground truth. An image that is drawn twice counts like two images of the same content.
    """
    num_gts = weights @ matches.num_gts  # (B,)
    weight = weights[:, matches.images].astype(np.float32)  # (B, D); whole, so sums are exact
    seen = weight.cumsum(axis=1)
    aps = np.zeros((len(weights), len(IOU_THRESHOLDS)))
    for t in range(len(IOU_THRESHOLDS)):
        true = np.flatnonzero(matches.matched[:, t] == 1)
        counted = seen[:, true]
        ignored = matches.matched[:, t] == -1
        if ignored.any():
            counted = counted - (weight * ignored).cumsum(axis=1)[:, true]
        precision = weight[:, true].cumsum(axis=1) / np.maximum(counted, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        aps[:, t] = (weight[:, true] * envelope).sum(axis=1, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return 100 * aps / num_gts[:, None]


def metrics(
    matches: Sequence[Matches], weights: np.ndarray, classes: Sequence[str], in_mean: Sequence[str]
) -> dict[str, np.ndarray]:
    """
    AP, AP50 and AP75 over the classes of ``in_mean`` and AP of each class, each (B,) in percent.
    Classes of which a draw has no ground truth are left out of its mean.
    """
    aps = np.stack([average_precision(m, weights) for m in matches])  # (classes, B, T)
    chosen = aps[[classes.index(name) for name in in_mean]]
    means = _mean(chosen, axis=0)  # (B, T)
    by_class = {f"{CLASS_AP}{n}": ap for n, ap in zip(classes, aps.mean(axis=2), strict=True)}
    return {**{n: means[:, where].mean(axis=1) for n, where in _MEANS.items()}, **by_class}


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Of those that are numbers; NaN of none, without a warning."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=axis) / known.sum(axis=axis)


def resample(
    strategy: Sequence[Sequence[Matches]],
    classes: Sequence[str],
    in_mean: Sequence[str],
    draws: int = DRAWS,
) -> dict[str, np.ndarray]:
    """
    The metrics of a strategy on images and with seeds drawn with replacement, the same ones for
    every strategy that is given as many.

    Args:
        strategy: for each seed, the matches by class, on the same images in the same order.
        in_mean: the classes whose mean AP, AP50 and AP75 are.

    Returns:
        By metric (1 + B,): the mean over the seeds of all images, then that of each draw.
    """
    images, seeds = draw(len(strategy[0][0].num_gts), len(strategy), draws)
    images = np.concatenate([np.ones((1, images.shape[1])), images])
    seeds = np.concatenate([np.full((1, seeds.shape[1]), 1 / seeds.shape[1]), seeds])
    total: dict[str, np.ndarray] = {}
    for share, matches in zip(seeds.T, strategy, strict=True):
        widest = max(len(of_class.images) for of_class in matches)
        batches = np.array_split(images, 1 + len(images) * widest // _BATCH)
        parts = [metrics(matches, batch, classes, in_mean) for batch in batches]
        for name in parts[0]:
            values = np.concatenate([part[name] for part in parts])
            total[name] = total.get(name, 0.0) + share * values
    return total


def draw(num_images: int, num_seeds: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """
    (B, N) how often a draw has each image, and (B, S) the share of each seed in it. Of S seeds
    S - 1 are drawn (Rao and Wu, 1988): S would make the variance too small by (S - 1) / S, which is
    much of it where seeds are few.
    """
    rng = np.random.default_rng(0)
    images = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=draws)
    count = max(1, num_seeds - 1)
    seeds = rng.multinomial(count, np.full(num_seeds, 1 / num_seeds), size=draws)
    return images, seeds / count


def compare(
    guided: Mapping[str, np.ndarray], static: Mapping[str, np.ndarray]
) -> dict[str, dict[str, float | None]]:
    """
    How two strategies differ.

    Args:
        guided, static: see :func:`resample`.

    Returns:
        By metric: "value" and "baseline" without drawing; their "difference" and its 95 %
        percentile interval "low" to "high"; the same in percent of the baseline as "relative",
        "relative_low" and "relative_high"; and the two-sided "p". None where it cannot be said.
    """
    return {name: _summarize(guided[name], static[name]) for name in guided}


def _summarize(values: np.ndarray, baselines: np.ndarray) -> dict[str, float | None]:
    """Of a metric of all images and seeds, and then of the draws."""
    value, baseline = float(values[0]), float(baselines[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = 100 * (values[1:] / baselines[1:] - 1)
    differences = (values - baselines)[1:]
    differences = differences[np.isfinite(differences)]
    low, high = np.percentile(differences, _LEVELS) if len(differences) else (np.nan, np.nan)
    # With a draw more on either side, so that it is never 0.
    beyond = 1 + min((differences <= 0).sum(), (differences >= 0).sum())
    summary = {
        "value": value,
        "baseline": baseline,
        "difference": value - baseline,
        "low": low,
        "high": high,
        "p": min(1.0, 2 * beyond / (len(differences) + 1)) if len(differences) else np.nan,
    }
    if baseline and np.isfinite(relative).all():
        relative_low, relative_high = np.percentile(relative, _LEVELS)
        summary["relative"] = 100 * (value / baseline - 1)
        summary.update(relative_low=relative_low, relative_high=relative_high)
    return {k: round(float(v), 4) if np.isfinite(v) else None for k, v in summary.items()}
