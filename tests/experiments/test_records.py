from mutual_guidance.experiments.records import history


def test_history_has_each_evaluation_and_the_means_since_the_one_before():
    rows = {
        19: {"total_loss": 4.0, "time": 0.5},
        39: {"total_loss": 2.0, "assignment/agreement": 0.5},
        49: {"bbox/AP": 10.0, "bbox/AP-cat": 9.0, "bbox/APs": float("nan")},
        59: {"total_loss": 1.0, "assignment/agreement": 0.25},
        60: {"bbox/AP": 20.0},  # after the last iteration, which Detectron2 counts as one more
        61: {"bbox/AP": 20.0},  # and again, launched once more after its end
        79: {"total_loss": 0.0},
    }
    assert history(rows, last=60) == [
        {"iteration": 50, "total_loss": 3.0, "assignment/agreement": 0.5, "AP": 10.0},
        {"iteration": 60, "total_loss": 1.0, "assignment/agreement": 0.25, "AP": 20.0},
    ]
