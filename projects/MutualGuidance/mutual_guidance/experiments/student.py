"""Student's t distribution, as far as intervals and tests over a few runs need it."""

import math

import numpy as np

# The 97.5 % quantiles with 1, 2, ... degrees of freedom; beyond, the last one is on the safe side.
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
# The 80 % quantile, of many degrees of freedom: what a test's power of 80 % adds to its quantile.
T_80 = 0.842


def quantile(freedom: int) -> float:
    """That of 97.5 %."""
    return T_975[min(freedom, len(T_975)) - 1]


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
