import numpy as np
from matplotlib.figure import Figure

from mutual_guidance.experiments import plots

PLACE = {"protocol": "long", "config": "configs/A/x.yaml", "variant": "", "strategy": "static"}


def run(seed, by_iteration, **place):
    points = [{"iteration": i, "AP": ap} for i, ap in by_iteration]
    return {**PLACE, **place, "seed": seed, "history": points}


def curve(runs):
    """Points of the mean, and the band's lowest and highest value at each of them."""
    axes = Figure().subplots()
    plots._plot_curve(axes, "C0", "AP", PLACE, runs)
    band = axes.collections[0].get_paths()
    edges = np.concatenate([path.vertices for path in band]) if band else np.empty((0, 2))
    points = axes.lines[0].get_xydata().tolist()
    ends = [edges[edges[:, 0] == x, 1] for x, _ in points]
    return points, [(float(y.min()), float(y.max())) for y in ends]


def test_mean_and_deviation_over_the_seeds():
    runs = [run(1, [(10, 4.0), (20, 6.0)]), run(2, [(10, 8.0), (20, 6.0)])]
    points, band = curve([*runs, run(1, [(10, 99.0)], strategy="mutual_guidance")])
    assert points == [[10, 6.0], [20, 6.0]]
    # At 10 the deviation of 4 and 8 is sqrt(8), at 20 there is none.
    np.testing.assert_allclose(band, [(6 - 8**0.5, 6 + 8**0.5), (6, 6)])


def test_only_iterations_that_all_seeds_have():
    runs = [run(1, [(10, 4.0), (20, 6.0), (30, 7.0)]), run(2, [(10, 8.0), (30, 9.0)])]
    points, _ = curve(runs)
    assert points == [[10, 6.0], [30, 8.0]]


def test_of_an_iteration_that_was_evaluated_twice_the_later_counts():
    points, band = curve([run(1, [(10, 4.0), (20, 5.0), (20, 6.0)])])
    assert points == [[10, 4.0], [20, 6.0]] and band == [(4.0, 4.0), (6.0, 6.0)]


def test_points_without_the_metric_are_passed_over():
    runs = [run(1, [(10, 4.0), (20, 5.0)])]
    del runs[0]["history"][0]["AP"]
    assert curve(runs)[0] == [[20, 5.0]]


def test_seeds_without_a_common_iteration_have_no_curve():
    assert curve([run(1, [(10, 4.0)]), run(2, [])]) == ([], [])


def test_differences_have_their_intervals():
    interval = {"difference": 1.0, "low": 0.5, "high": 1.5}
    guided = {"AP": interval, "AP50": interval, "AP75": {**interval, "low": None, "high": None}}
    rows = [
        {**PLACE, "metrics": {"AP": {"mean": 20.0}}},
        {**PLACE, "strategy": "mutual_guidance", "metrics": guided},
    ]
    axes = Figure().subplots()
    plots._plot_differences(axes, rows, {"static": "C0", "mutual_guidance": "C1"})
    (container,) = axes.containers
    assert container[0].get_ydata().tolist() == [1.0, 1.0, 1.0]
    (bars,) = container[2]
    assert [np.ptp(segment[:, 1]) for segment in bars.get_segments()] == [1.0, 1.0, 0.0]


def test_curves_are_of_the_seeds_that_all_rows_have():
    rows = [PLACE, {**PLACE, "strategy": "mutual_guidance"}]
    runs = [run(seed, [(10, 4.0)]) for seed in (1, 2, 3)]
    runs += [run(seed, [(10, 4.0)], strategy="mutual_guidance") for seed in (2, 3, 4)]
    assert [r["seed"] for r in plots._of_all(rows, runs)] == [2, 3, 2, 3]
    none = plots._of_all(rows, runs[:1] + runs[-1:])
    plots._plot_curve(Figure().subplots(), "C0", "AP", PLACE, none)
    assert none == []
