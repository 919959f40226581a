#!/usr/bin/env python3
"""
How often the intervals of an experiment hold the true difference, by their number of seeds.

    python benchmarks/coverage.py

makes experiments of which the truth is known, a difference of 0: four folds, pairs of trainings
that differ by chance, on all images alike or on each for itself, of which the folds of a seed may
share some, and images that favour one strategy by chance, each normally distributed. It draws the
intervals as tools/experiment.py does, and tells how often the bootstrap holds 0, how often the
t-interval holds the difference on the images at hand, and how often each, and both together, lie
above 0, which would confirm a gain that is not there.
"""

import math
from typing import NamedTuple

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from mutual_guidance.arguments import Parser, at_least_one
from mutual_guidance.errors import run_main
from mutual_guidance.experiments.bootstrap import DRAWS, draw
from mutual_guidance.experiments.student import quantile

SEEDS = (2, 3, 5, 8)
FOLDS = 4


class Chance(NamedTuple):
    """Variances of the mean difference, in units of what the trainings add."""

    images: float = 0.0
    shared: float = 0.0  # of the trainings' one, what the folds of a seed have in common
    each: float = 0.0  # of the trainings' one, what falls on each image for itself


CASES = {
    "trainings alone": Chance(),
    "images as much": Chance(images=1.0),
    "trainings alone, a third of it shared by a seed's folds": Chance(shared=1 / 3),
    "trainings alone, on each image for itself": Chance(each=1.0),
}


class Experiments(NamedTuple):
    """E of them, of N images and S seeds: what chance adds to the difference."""

    trainings: np.ndarray  # (E, folds, S) to a pair's
    images: np.ndarray  # (E, N) to an image's
    each: np.ndarray | None = None  # (E, N, S) to an image's with a seed; None for nothing


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--experiments", type=at_least_one, default=4000, help="a row")
    parser.add_argument("--images", type=at_least_one, default=364, help="of all folds")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    cases = [(what, seeds) for what in CASES for seeds in SEEDS]
    rows = []
    for what, seeds in tqdm(cases, leave=False):
        made = make(CASES[what], args.experiments, args.images, seeds, rng)
        rows.append([what, seeds, *counts(made)])
    headers = ("chance of", "seeds", "bootstrap holds (%)", "above 0 (%)", "t holds (%)",
               "above 0 (%)", "both above 0 (%)")  # fmt: skip
    print(tabulate(rows, headers, "pipe", floatfmt=".1f"))


def make(
    chance: Chance, number: int, num_images: int, seeds: int, rng: np.random.Generator
) -> Experiments:
    trainings = rng.normal(size=(number, FOLDS, seeds))
    trainings *= math.sqrt(1 - chance.shared - chance.each)
    if chance.shared:
        trainings += rng.normal(size=(number, 1, seeds)) * math.sqrt(chance.shared)
    deviation = math.sqrt(chance.images / (FOLDS * seeds) * num_images)
    images = rng.normal(0, deviation, (number, num_images))
    if not chance.each:
        return Experiments(trainings, images)
    each = rng.normal(size=(number, num_images, seeds)) * math.sqrt(
        chance.each * num_images / FOLDS
    )
    return Experiments(trainings, images, each)


def counts(made: Experiments) -> tuple[float, float, float, float, float]:
    """In percent: bootstrap holds 0, lies above; t holds these images' difference, lies above 0."""
    low, high = by_bootstrap(made)
    t_low, t_high, on_these = by_t(made)
    holds = (low <= 0) & (high >= 0), low > 0, (t_low <= on_these) & (t_high >= on_these), t_low > 0
    return *(100 * np.mean(x) for x in holds), 100 * np.mean((low > 0) & (t_low > 0))


def by_bootstrap(made: Experiments) -> tuple[np.ndarray, np.ndarray]:
    """The ends of each experiment's interval (E,)."""
    num_images, num_seeds = made.images.shape[1], made.trainings.shape[2]
    drawn_images, shares = draw(num_images, num_seeds, DRAWS)
    means = made.images @ drawn_images.T / num_images + made.trainings.mean(axis=1) @ shares.T
    for seed in range(num_seeds if made.each is not None else 0):
        means += made.each[:, :, seed] @ drawn_images.T / num_images * shares[:, seed]
    return tuple(np.percentile(means, (2.5, 97.5), axis=1))


def by_t(made: Experiments) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    The ends of the pairs' intervals (E,), which speak of other trainings on these images, and the
    true difference on these.
    """
    of_folds = _fold_means(made.images)
    pairs = made.trainings + of_folds[..., None]
    if made.each is not None:
        pairs = pairs + _fold_means(made.each)
    pairs = pairs.reshape(len(pairs), -1)
    count = pairs.shape[1]
    half = quantile(count - 1) * pairs.std(axis=1, ddof=1) / math.sqrt(count)
    mean = pairs.mean(axis=1)
    return mean - half, mean + half, of_folds.mean(axis=1)


def _fold_means(values: np.ndarray) -> np.ndarray:
    """Of the images (E, N, ...) of each fold: (E, folds, ...)."""
    return np.stack([part.mean(axis=1) for part in np.array_split(values, FOLDS, axis=1)], axis=1)


if __name__ == "__main__":
    run_main(main)
