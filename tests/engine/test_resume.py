import pytest

from mutual_guidance.config import load_config
from mutual_guidance.engine.resume import keep_to_run
from mutual_guidance.errors import ConfigError
from tests.runs import CONFIG


@pytest.fixture
def run(tmp_path):
    """config.yaml of a run, and the config that it is of."""
    cfg = load_config(CONFIG, ["DATASETS.CLASSES", ["cat", "dog"], "SOLVER.BASE_LR", 0.02])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    return str(tmp_path / "config.yaml"), cfg


def test_the_same_config_goes_on_silently(run, caplog):
    path, cfg = run
    assert keep_to_run(cfg, path) == cfg and caplog.text == ""


def test_what_the_checkpoint_decides_is_kept_and_told(run, caplog):
    path, cfg = run
    cfg.merge_from_list(["SOLVER.BASE_LR", 0.5, "SEED", 7, "SOLVER.CHECKPOINT_PERIOD", 9])
    resumed = keep_to_run(cfg, path)
    assert (resumed.SOLVER.BASE_LR, resumed.SEED, resumed.SOLVER.CHECKPOINT_PERIOD) == (0.02, 1, 9)
    assert resumed.is_frozen()
    rows = {line.split()[0]: line.split()[1:] for line in caplog.text.splitlines() if "." in line}
    assert rows["SOLVER.BASE_LR"] == ["0.02", "0.5", "0.02"]
    assert rows["SOLVER.CHECKPOINT_PERIOD"] == ["150", "9", "9"]


def test_other_classes_are_refused(run):
    path, cfg = run
    cfg.DATASETS.CLASSES = ["cat", "cow"]
    with pytest.raises(ConfigError, match="the classes are cat, cow, but .* says cat, dog"):
        keep_to_run(cfg, path)


def test_another_data_set_is_refused(run):
    path, cfg = run
    cfg.DATASETS.TRAIN = ("others",)
    with pytest.raises(ConfigError, match="data sets of the training are others, but .* says sha"):
        keep_to_run(cfg, path)


def test_another_batch_is_refused(run):
    path, cfg = run
    cfg.SOLVER.IMS_PER_BATCH = 99
    with pytest.raises(ConfigError, match="the images of a batch are 99, but .* says 16: train"):
        keep_to_run(cfg, path)


def test_a_run_without_or_with_a_torn_config(run, tmp_path):
    _, cfg = run
    assert keep_to_run(cfg, str(tmp_path / "none.yaml")) == cfg
    for content in ("A: [", "CUDN", "- a"):
        (tmp_path / "torn.yaml").write_text(content)
        with pytest.raises(ConfigError, match="torn.yaml cannot be read; remove it"):
            keep_to_run(cfg, str(tmp_path / "torn.yaml"))
    for content in ("DATASETS: {CLASSES: 5}", "SOLVER: {BASE_LR: abc}"):
        (tmp_path / "torn.yaml").write_text(content)
        with pytest.raises(ConfigError, match=r"torn.yaml has \w+\.\w+ .*; remove it"):
            keep_to_run(cfg, str(tmp_path / "torn.yaml"))
