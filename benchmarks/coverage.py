#!/usr/bin/env python3
"""
How often the intervals of an experiment hold the true difference, by their number of seeds.

    python benchmarks/coverage.py

makes experiments of which the truth is known, a difference of 0: four folds, pairs of trainings
that differ by chance, of which the folds of a seed may share some, and images that favour one
strategy by chance, each normally distributed. It draws the intervals as tools/experiment.py does,
and tells how often the bootstrap holds 0, how often the t-interval holds the difference on the
images at hand, and how often each lies above 0, which would confirm a gain that is not there.
"""

import math

import numpy as np
from tabulate import tabulate
from tqdm import tqdm

from mutual_guidance.arguments import Parser, at_least_one
from mutual_guidance.errors import run_main
from mutual_guidance.experiments.bootstrap import DRAWS, draw
from mutual_guidance.experiments.student import quantile

SEEDS = (2, 3, 5, 8)
FOLDS = 4
# Variance that the images add to the mean difference, in units of what the trainings add, and the
# share of the trainings' variance that the folds of a seed have in common.
CASES = {
    "trainings alone": (0.0, 0.0),
    "images as much": (1.0, 0.0),
    "trainings alone, a third of it shared by a seed's folds": (0.0, 1 / 3),
}


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--experiments", type=at_least_one, default=4000, help="a row")
    parser.add_argument("--images", type=at_least_one, default=364, help="of all folds")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    cases = [(what, seeds) for what in CASES for seeds in SEEDS]
    rows = []
    for what, seeds in tqdm(cases, leave=False):
        of_images, shared = CASES[what]
        trainings = rng.normal(size=(args.experiments, FOLDS, seeds)) * math.sqrt(1 - shared)
        if shared:
            of_seeds = rng.normal(size=(args.experiments, 1, seeds))
            trainings += of_seeds * math.sqrt(shared)
        deviation = math.sqrt(of_images / (FOLDS * seeds) * args.images)
        images = rng.normal(0, deviation, (args.experiments, args.images))
        rows.append([what, seeds, *by_bootstrap(trainings, images), *by_t(trainings, images)])
    headers = ("chance of", "seeds", "bootstrap holds (%)", "above 0 (%)", "t holds (%)",
               "above 0 (%)")  # fmt: skip
    print(tabulate(rows, headers, "pipe", floatfmt=".1f"))


def by_bootstrap(trainings: np.ndarray, images: np.ndarray) -> tuple[float, float]:
    """
    Count how often, in percent, the interval holds 0 and lies above it.

    Args:
        trainings: (E, folds, seeds) what chance adds to the difference of a pair. images: (E, N).
    """
    num_images, num_seeds = images.shape[1], trainings.shape[2]
    drawn_images, shares = draw(num_images, num_seeds, DRAWS)
    means = images @ drawn_images.T / num_images + trainings.mean(axis=1) @ shares.T  # (E, B)
    low, high = np.percentile(means, (2.5, 97.5), axis=1)
    return 100 * np.mean((low <= 0) & (high >= 0)), 100 * np.mean(low > 0)


def by_t(trainings: np.ndarray, images: np.ndarray) -> tuple[float, float]:
    """Count the same of the pairs' t-interval, which speaks of other trainings on these images."""
    of_folds = np.stack([part.mean(axis=1) for part in np.array_split(images, FOLDS, axis=1)], 1)
    pairs = (trainings + of_folds[..., None]).reshape(len(trainings), -1)
    count = pairs.shape[1]
    half = quantile(count - 1) * pairs.std(axis=1, ddof=1) / math.sqrt(count)
    error = pairs.mean(axis=1) - of_folds.mean(axis=1)
    return 100 * np.mean(abs(error) <= half), 100 * np.mean(pairs.mean(axis=1) - half > 0)


if __name__ == "__main__":
    run_main(main)
