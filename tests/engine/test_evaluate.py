from argparse import Namespace
from importlib import import_module
from unittest.mock import Mock

import pytest
from torch import nn

import train_net
from mutual_guidance.checkpoint import Checkpointer
from mutual_guidance.engine import Trainer, evaluate
from mutual_guidance.errors import CheckpointError
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


@pytest.mark.parametrize("eval_only", [True, False])
def test_one_of_several_processes_tells_what_all_find_in_the_weights(eval_only, monkeypatch):
    waited = []
    launch = import_module("mutual_guidance.engine.launch")  # which has a function of its name
    monkeypatch.setattr(launch, "let_another_tell", lambda: waited.append(True))
    monkeypatch.setattr(train_net, "setup", lambda args: tiny_config())
    monkeypatch.setattr(Trainer, "build_model", lambda cfg: nn.Linear(1, 1))
    for loads in (Trainer, Checkpointer):
        monkeypatch.setattr(loads, "resume_or_load", Mock(side_effect=CheckpointError("torn")))
    monkeypatch.setattr(Trainer, "__init__", lambda self, cfg: None)
    with pytest.raises(CheckpointError, match="torn"):
        train_net.main(Namespace(eval_only=eval_only, resume=False))
    assert waited
