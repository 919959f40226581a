import numpy as np
import pytest

from benchmarks.coverage import Chance, Experiments, counts, make


def test_of_two_seeds_the_bootstrap_knows_the_range_alone():
    rng = np.random.default_rng(0)
    trainings, images = rng.normal(size=(2000, 4, 2)), np.zeros((2000, 8))
    got = counts(Experiments(trainings, images))
    # Of two independent numbers the truth lies between in half of all cases, above in a quarter.
    assert got[:2] == pytest.approx((50, 25), abs=4)
    assert got[2:4] == pytest.approx((95, 2.5), abs=1.5)
    assert got[4] <= min(got[1], got[3])


@pytest.mark.parametrize("chance", [Chance(shared=1 / 3), Chance(each=1.0)])
def test_the_trainings_have_the_same_variance_however_it_falls(chance):
    made = make(chance, 4000, 40, 3, np.random.default_rng(0))
    pairs = made.trainings
    if made.each is not None:
        pairs = pairs + made.each.reshape(4000, 4, 10, 3).mean(axis=2)
    assert pairs.var() == pytest.approx(1, abs=0.05)
