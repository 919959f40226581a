import pytest
from torch import nn

from mutual_guidance.engine import Trainer, evaluate
from tests.conftest import tiny_config


@pytest.mark.parametrize(("expected", "fits"), [(50.0, True), (60.0, False)])
def test_an_evaluation_returns_its_results_and_checks_the_expected(expected, fits, monkeypatch):
    cfg = tiny_config()
    cfg.TEST.EXPECTED_RESULTS = [["bbox", "AP", expected, 0.5]]
    results = {"bbox": {"AP": 50.2}}
    monkeypatch.setattr(Trainer, "build_model", lambda cfg: nn.Linear(1, 1))
    monkeypatch.setattr(Trainer, "test", lambda cfg, model: results)
    if fits:
        assert evaluate(cfg, resume=False) == results
    else:
        with pytest.raises(SystemExit):
            evaluate(cfg, resume=False)
