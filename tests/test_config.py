"""The project's keys beside Detectron2's, and files and pairs that set them."""

import re

import pytest

from mutual_guidance.config import load_config
from mutual_guidance.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.runs import CONFIG, run_python


def test_its_import_registers_the_detectors():
    done = run_python(
        "from mutual_guidance import add_mutual_guidance_config\n"
        "from detectron2.modeling import META_ARCH_REGISTRY as known\n"
        "print(*(name in known for name in ('FSSD', 'RFBNet', 'GuidedRetinaNet', 'GuidedFCOS')))"
    )
    assert done.stdout == "True True True True\n"


def test_the_matcher_imports_nothing_of_detectron2():
    done = run_python(
        "import sys, mutual_guidance.assignment\n"
        "print(sorted({'detectron2', 'fvcore', 'torchvision', 'yacs'} & set(sys.modules)))"
    )
    assert done.stdout == "[]\n"


def test_the_package_has_no_other_names():
    import mutual_guidance

    with pytest.raises(AttributeError, match="'mutual_guidance' has no attribute 'AnchorMatcher'"):
        mutual_guidance.AnchorMatcher  # noqa: B018


def test_a_stock_config_keeps_its_network_as_the_readme_says():
    page = (REPOSITORY / "projects" / "MutualGuidance" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(from detectron2.*?)```", page, re.S)
    names = {}
    exec(code, names)
    guided = names["model"]
    assert type(guided).__name__ == "GuidedRetinaNet"
    cfg = names["cfg"].clone()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    stock = names["build_model"](cfg)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (stock, guided)]
    assert shapes[0] == shapes[1]


def test_a_config_of_another_version_is_refused(tmp_path):
    (tmp_path / "old.yaml").write_text("VERSION: 1\n")
    with pytest.raises(ConfigError, match="VERSION must be 2, Detectron2's, got 1"):
        load_config(str(tmp_path / "old.yaml"), [])


def test_missing_file_and_wrong_keys_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_config(str(tmp_path / "nowhere.yaml"), [])
    with pytest.raises(
        ConfigError, match=r"GUIDANCE\.STRATEGIE; did you mean MODEL\.MUTUAL_GUIDANCE\.STRATEGY"
    ):
        load_config(CONFIG, ["MODEL.MUTUAL_GUIDANCE.STRATEGIE", "static"])
    path = tmp_path / "misspelt.yaml"
    path.write_text("SOLVER:\n  BASE_LRR: 0.1\n")
    with pytest.raises(ConfigError, match=r"misspelt\.yaml .*SOLVER\.BASE_LRR; did you mean"):
        load_config(str(path), [])
    message = "SOLVER.IMS_PER_BATCH is 'many', of the kind str; it must be of the kind int"
    with pytest.raises(ConfigError, match=message):
        load_config(CONFIG, ["SOLVER.IMS_PER_BATCH", "many"])


def test_keys_and_values_as_a_person_types_them(tmp_path):
    opts = ["SOLVER.EPOCHS=1", "DATASETS.TRAIN", "mine_train", "SOLVER.AMP.ENABLED", "true"]
    cfg = load_config(CONFIG, opts)
    assert cfg.SOLVER.EPOCHS == 1.0 and cfg.DATASETS.TRAIN == ("mine_train",)
    assert cfg.SOLVER.AMP.ENABLED is True
    (tmp_path / "mine.yaml").write_text(
        f"_BASE_: {CONFIG}\nSOLVER: {{EPOCHS: 50}}\nDATASETS: {{TEST: mine}}"
    )
    cfg = load_config(tmp_path / "mine.yaml")
    assert cfg.SOLVER.EPOCHS == 50.0 and cfg.DATASETS.TEST == ("mine",)
    with pytest.raises(
        ConfigError, match="no key STRATEGY; did you mean MODEL.MUTUAL_GUIDANCE.STRATEGY"
    ):
        load_config(CONFIG, ["STRATEGY", "static"])
    with pytest.raises(ConfigError, match="no config is given: add --config-file FILE"):
        load_config("", [])
    with pytest.raises(ConfigError, match="no such file; did you mean .*/retinanet_R_18.yaml"):
        load_config(CONFIG.replace("_R_18", "_R18"), [])


def test_homes_and_variables_in_paths_of_a_yaml(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("RUNS", "/runs")
    (tmp_path / "mine.yaml").write_text(
        f"_BASE_: {CONFIG}\nOUTPUT_DIR: $RUNS/a\nMODEL: {{WEIGHTS: ~/a.pth}}"
    )
    cfg = load_config(tmp_path / "mine.yaml")
    assert (cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS) == ("/runs/a", "/home/me/a.pth")
    cfg = load_config(tmp_path / "mine.yaml", ["OUTPUT_DIR", "a$RUNS"])  # as the shell gave it
    assert cfg.OUTPUT_DIR == "a$RUNS"
    cfg = load_config(tmp_path / "mine.yaml", ["OUTPUT_DIR=~/x", "MODEL.WEIGHTS=~/w.pth"])
    assert (cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS) == ("/home/me/x", "/home/me/w.pth")
    (tmp_path / "mine.yaml").write_text(f"_BASE_: {CONFIG}\nMODEL: {{WEIGHTS: }}")
    assert not load_config(tmp_path / "mine.yaml").MODEL.WEIGHTS
    (tmp_path / "mine.yaml").write_text(f"_BASE_: {CONFIG}x")
    with pytest.raises(ConfigError, match="_BASE_ of .*mine.yaml: there is no file .*x; did you"):
        load_config(tmp_path / "mine.yaml")


def test_iterations_of_the_command_line_win_over_epochs_of_the_file():
    assert load_config(CONFIG).SOLVER.EPOCHS == 12.0
    cfg = load_config(CONFIG, ["SOLVER.MAX_ITER", "7"])
    assert (cfg.SOLVER.EPOCHS, cfg.SOLVER.MAX_ITER) == (0.0, 7)
    assert load_config(CONFIG, ["SOLVER.MAX_ITER", 7, "SOLVER.EPOCHS", 2]).SOLVER.EPOCHS == 2.0


def test_iterations_of_a_file_win_over_epochs_of_its_base(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"_BASE_: {CONFIG}\nSOLVER: {{MAX_ITER: 7}}\n")
    assert load_config(path).SOLVER.EPOCHS == 0.0
    above = tmp_path / "above.yaml"
    above.write_text(f"_BASE_: [{CONFIG}, mine.yaml]\nOUTPUT_DIR: out\n")
    assert load_config(above).SOLVER.EPOCHS == 0.0
    path.write_text(f"_BASE_: {CONFIG}\nSOLVER: {{MAX_ITER: 7, EPOCHS: 2.0}}\n")
    assert load_config(path).SOLVER.EPOCHS == 2.0


def test_config_from_a_stranger_executes_nothing(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("OUTPUT_DIR: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError):
        load_config(str(path), [])
