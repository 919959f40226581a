"""Student's t distribution, as far as intervals and tests over a few runs need it."""

import math
from collections.abc import Sequence

import numpy as np

# The 97.5 % quantiles with 1, 2, ... degrees of freedom; beyond, the last one is on the safe side.
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
# The 80 % quantiles likewise: what a test's power of 80 % adds to its quantile.
T_80 = (
    1.376, 1.061, 0.978, 0.941, 0.920, 0.906, 0.896, 0.889, 0.883, 0.879,
    0.876, 0.873, 0.870, 0.868, 0.866, 0.865, 0.863, 0.862, 0.861, 0.860,
    0.859, 0.858, 0.858, 0.857, 0.856, 0.856, 0.855, 0.855, 0.854, 0.854,
)  # fmt: skip


def quantile(freedom: int, table: Sequence[float] = T_975) -> float:
    """That of a table."""
    return table[min(freedom, len(table)) - 1]


def two_sided_p(t: float, freedom: int) -> float:
    """
    The chance of a t as far from 0 or farther, by Simpson's rule, to four digits. Over the angle
    whose tangent is t / sqrt(freedom) the density has no narrow peak, however large t is.
    """
    angles = np.linspace(math.atan(abs(t) / math.sqrt(freedom)), math.pi / 2, 2_001)
    density = np.cos(angles).clip(min=0) ** (freedom - 1)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    weights = np.ones_like(angles)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    outside = (weights * density).sum() * (angles[1] - angles[0]) / 3
    return min(1.0, 2 * outside * scale / math.sqrt(math.pi))
