import numpy as np
import pytest

from benchmarks.coverage import by_bootstrap, by_t


def test_of_two_seeds_the_bootstrap_knows_the_range_alone():
    rng = np.random.default_rng(0)
    trainings, images = rng.normal(size=(2000, 4, 2)), np.zeros((2000, 8))
    # Of two independent numbers the truth lies between in half of all cases, above in a quarter.
    assert by_bootstrap(trainings, images) == pytest.approx((50, 25), abs=4)
    assert by_t(trainings, images) == pytest.approx((95, 2.5), abs=1.5)
