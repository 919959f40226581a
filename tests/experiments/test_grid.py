import ast
import itertools
from pathlib import Path

import pytest
import yaml

from mutual_guidance.errors import ExperimentError
from mutual_guidance.experiments.grid import load_experiment

MINIMAL = {"configs": ["configs/A/x.yaml"], "strategies": ["static"], "seeds": [1]}
EVIL = "configs: !!python/object/apply:os.getcwd []"


def load(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(
        content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False)
    )
    return load_experiment(path, Path("out"))


def test_long_grid_is_the_product(tmp_path):
    content = {
        "configs": ["configs/A/x.yaml", "configs/B/y.yaml"],
        "strategies": ["static", "mutual_guidance"],
        "seeds": [1, 2, 3],
        "overrides": {"SOLVER.EPOCHS": 2.0, "MODEL.WEIGHTS": ""},
    }
    cells = load(tmp_path, content).cells
    assert len({cell.folder for cell in cells}) == len(cells) == 12
    assert cells[1].arguments == [
        "train_net.py", "--config-file", "configs/A/x.yaml", "--resume",
        "MODEL.MUTUAL_GUIDANCE.STRATEGY", "mutual_guidance", "SOLVER.EPOCHS", "2.0",
        "MODEL.WEIGHTS", "", "SEED", "1",
        "OUTPUT_DIR", "out/mine/long/A/x/mutual_guidance/seed_1",
    ]  # fmt: skip
    # A seed of all configs before the next one.
    assert [(c.seed, c.config[8]) for c in cells[::2]] == [
        (1, "A"), (1, "B"), (2, "A"), (2, "B"), (3, "A"), (3, "B"),
    ]  # fmt: skip


def test_warm_cells_go_on_from_the_start_of_their_seed(tmp_path):
    stage = {"start": {"SOLVER.EPOCHS": 9.0}, "overrides": {"SOLVER.EPOCHS": 5.0}}
    content = {
        **MINIMAL,
        "strategies": ["static", "mutual_guidance"],
        "seeds": [1, 2],
        "overrides": {"SOLVER.BASE_LR": 0.1},
        "protocols": {"warm": stage, "long": None},
    }
    cells = load(tmp_path, content).cells
    starts = [cell for cell in cells if cell.variant == "start"]
    assert [s.seed for s in starts] == [1, 2] and all(s.strategy == "static" for s in starts)
    assert starts[0].settings[2:] == ("SOLVER.BASE_LR", "0.1", "SEED", "1", "SOLVER.EPOCHS", "9.0")
    warm = [cell for cell in cells if cell.start]
    assert [cell.start for cell in warm] == [starts[0], starts[0], starts[1], starts[1]]
    assert all(cells.index(cell.start) < cells.index(cell) for cell in warm)
    assert {cell.opts[cell.opts.index("SOLVER.EPOCHS") + 1] for cell in warm} == {"5.0"}
    weights = warm[3].opts[warm[3].opts.index("MODEL.WEIGHTS") + 1]
    assert weights == "out/mine/warm/A/x/start/seed_2/model_final.pth"
    assert [cell.protocol for cell in cells if not cell.start and cell not in starts] == [
        "long"
    ] * 4


def test_variants_add_to_the_grid(tmp_path):
    variants = [
        {"name": "gamma_1", "configs": ["configs/A/x.yaml"],
         "overrides": {"MODEL.RETINANET.FOCAL_LOSS_GAMMA": 1.0}},
        {"name": "sigma_3", "strategies": ["mutual_guidance"],
         "overrides": {"MODEL.MUTUAL_GUIDANCE.SIGMA": 3.0}},
    ]  # fmt: skip
    content = {**MINIMAL, "strategies": ["static", "mutual_guidance"], "variants": variants}
    content["configs"] = ["configs/A/x.yaml", "configs/B/y.yaml"]
    cells = load(tmp_path, content).cells
    assert [c.variant for c in cells if c.config == "configs/B/y.yaml"] == ["", "", "sigma_3"]
    assert [c.variant for c in cells[:4]] == [""] * 4  # all configs of the plain grid first
    cells = [c for c in cells if c.config == "configs/A/x.yaml"]
    assert [(c.variant, c.strategy) for c in cells] == [
        ("", "static"), ("", "mutual_guidance"), ("gamma_1", "static"),
        ("gamma_1", "mutual_guidance"), ("sigma_3", "mutual_guidance"),
    ]  # fmt: skip
    assert str(cells[-1].folder) == "out/mine/long/A/x/sigma_3/mutual_guidance/seed_1"
    assert [c.baseline for c in cells] == [None, "", None, "gamma_1", ""]
    assert cells[-1].settings[-2:] == ("MODEL.MUTUAL_GUIDANCE.SIGMA", "3.0")


def test_iterations_end_the_epochs_of_lower_layers(tmp_path):
    content = {
        **MINIMAL,
        "overrides": {"SOLVER.EPOCHS": 60.0},
        "protocols": {"long": {}, "short": {"overrides": {"SOLVER.MAX_ITER": 500}}},
        "variants": [{"name": "both", "overrides": {"SOLVER.MAX_ITER": 9, "SOLVER.EPOCHS": 2.0}}],
    }
    told = {
        (c.protocol, c.variant): [key for key in c.settings if key.startswith("SOLVER.")]
        for c in load(tmp_path, content).cells
    }
    assert told["long", ""] == ["SOLVER.EPOCHS"] and told["short", ""] == ["SOLVER.MAX_ITER"]
    assert set(told["long", "both"]) == {"SOLVER.EPOCHS", "SOLVER.MAX_ITER"}


FOLDS = {
    "number": 3,
    "seed": 7,
    "dataset": {"name": "d", "format": "voc", "root": "D", "split": ["train", "test"]},
}


def test_folds_set_the_data_and_a_pair_runs_side_by_side(tmp_path):
    content = {**MINIMAL, "strategies": ["static", "mutual_guidance"], "seeds": [1, 2]}
    cells = load(tmp_path, {**content, "folds": FOLDS}).cells
    assert [(c.seed, c.fold) for c in cells[::2]] == list(itertools.product((1, 2), (1, 2, 3)))
    assert [c.strategy for c in cells] == ["static", "mutual_guidance"] * 6
    assert str(cells[3].folder) == "out/mine/long/A/x/mutual_guidance/fold_2/seed_1"
    settings = dict(zip(cells[3].settings[::2], cells[3].settings[1::2], strict=True))
    train, test = ast.literal_eval(settings["DATASETS.REGISTER"])
    assert settings["DATASETS.TRAIN"] == "['d_fold_2_of_3_train']" == f"[{train['name']!r}]"
    assert settings["DATASETS.TEST"] == "['d_fold_2_of_3_test']" == f"[{test['name']!r}]"
    split = {"of": ["train", "test"], "folds": 3, "seed": 7, "fold": 2, "part": "test"}
    assert test == {**FOLDS["dataset"], "name": test["name"], "split": split}
    assert train["split"] == {**split, "part": "train"}


def test_a_start_has_folds_too(tmp_path):
    stages = {"protocols": {"warm": {"start": {"SOLVER.EPOCHS": 9.0}}}}
    cells = load(tmp_path, {**MINIMAL, **stages, "folds": FOLDS}).cells
    assert [str(c.folder) for c in cells[:2]] == [
        f"out/mine/warm/A/x/{name}/fold_1/seed_1" for name in ("start", "static")
    ]
    assert all(cell.start.fold == cell.fold for cell in cells if cell.start)


PLANNED = {
    **MINIMAL,
    "seeds": [1, 2],
    "strategies": ["static", "mutual_guidance"],
    "primary": {
        "claim": "it helps", "metric": "AP", "strategy": "mutual_guidance", "classes": ["a"],
    },
    "decision": {"paper_gain": 3.5},
}  # fmt: skip


def test_comparisons_inherit_the_runs_of_the_primary_one(tmp_path):
    halves = {"name": "halves", "strategies": ["localize_to_classify"], "overrides": {}}
    other = {"metric": "AP", "variant": "halves", "strategy": "localize_to_classify"}
    content = {**PLANNED, "variants": [halves], "secondary": [{"metric": "AP75"}, other]}
    questions = load(tmp_path, content).questions
    place = {"config": "configs/A/x.yaml", "variant": "", "strategy": "mutual_guidance"}
    assert questions["primary"] == {**PLANNED["primary"], **place}
    assert questions["secondary"] == [{**place, "metric": "AP75"}, {**place, **other}]
    assert load(tmp_path, MINIMAL).questions == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decision": {}}, "primary and decision stand together"),
        ({"primary": {}}, "primary and decision stand together"),
        ({"decision": {"paper_gain": "3.5 %"}}, "paper_gain must be in percent"),
        ({"decision": {"paper_gain": float("inf")}}, "paper_gain must be in percent"),
        ({"protocols": {"a": {}, "b": {}}}, "which protocol is meant"),
        ({"seeds": [1]}, "one seed tells nothing of other trainings; give two or more"),
        ({"primary": {**PLANNED["primary"], "strategy": "static"}}, "does not compare .* with"),
        ({"primary": {**PLANNED["primary"], "variant": "x"}}, "the grid does not compare"),
        ({"primary": {**PLANNED["primary"], "metric": 50}}, "primary needs a metric such as"),
        ({"primary": {**PLANNED["primary"], "classes": []}}, "primary.classes must list those"),
        ({"primary": {"metric": "AP"}}, "primary needs a claim in words"),
        ({"secondary": [{"metric": "AP", "config": "configs/B/y.yaml"}]}, "does not compare"),
        ({"secondary": [{"metric": "AP", "claim": "too"}]}, "has an unknown key 'claim'"),
    ],
)
def test_comparisons_that_the_grid_does_not_make_are_refused(tmp_path, change, message):
    with pytest.raises(ExperimentError, match=message):
        load(tmp_path, {**PLANNED, **change})


@pytest.mark.parametrize(
    ("config", "place"),
    [
        ("configs/A/x.yaml", "A/x"),
        ("mine.yaml", "mine"),
        ("../own/mine.yml", "own/mine"),
        ("/data/own/mine.yaml", "data/own/mine"),
    ],
)
def test_a_config_may_be_anywhere(tmp_path, config, place):
    (cell,) = load(tmp_path, {**MINIMAL, "configs": [config]}).cells
    assert cell.config == config
    assert str(cell.folder) == f"out/mine/long/{place}/static/seed_1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "mine.yaml: while parsing"),
        (EVIL, "could not determine a constructor"),
        ([], "the file must be a mapping"),
        ({**MINIMAL, "seed": 1}, "unknown key 'seed'; known are configs"),
        ({"configs": MINIMAL["configs"]}, "strategies is missing"),
        ({**MINIMAL, "configs": ["x.json"]}, "configs must list files such as .* 'x.json'"),
        ({**MINIMAL, "configs": ["configs/a.yaml", "a.yml"]}, "folders of configs must not repeat"),
        ({**MINIMAL, "configs": ["configs/A.yaml", "configs/A/v.yaml"], "variants": [
            {"name": "v", "configs": ["configs/A.yaml"], "overrides": {}}]},
         "folders of configs and variants must not repeat, got .*'A/v', 'A/v'"),
        ({**MINIMAL, "configs": []}, "configs must list"),
        ({**MINIMAL, "strategies": ["mutual"]}, "some of static, .* got 'mutual'"),
        ({**MINIMAL, "seeds": [1, "2"]}, "seeds must list integers .* got '2'"),
        ({**MINIMAL, "seeds": [1, 1]}, "seeds must not repeat"),
        ({**MINIMAL, "folds": 4}, "folds must be a mapping"),
        ({**MINIMAL, "folds": {**FOLDS, "number": 1}}, "a number from 2 on and a seed, got 1 and"),
        ({**MINIMAL, "folds": {**FOLDS, "seed": "1"}}, "number from 2 on and a seed, got 3 and '1"),
        ({**MINIMAL, "folds": {**FOLDS, "dataset": {"name": "d"}}}, "must be a VOC entry of DATA"),
        ({**MINIMAL, "folds": {**FOLDS, "dataset": {**FOLDS["dataset"], "split": "train"}}},
         "folds.dataset.split must be a list"),
        ({**MINIMAL, "overrides": {"SEED": 3}}, "must not set SEED: the runner does"),
        ({**MINIMAL, "overrides": {"SOLVER": {"EPOCHS": 1}}}, "write SOLVER as one dotted key"),
        ({**MINIMAL, "protocols": {"warm": {"begin": {}}}}, "protocols.warm has an unknown key"),
        ({**MINIMAL, "protocols": {"warm": {"start": {}, "overrides": {"MODEL.WEIGHTS": "a"}}}},
         "protocols.warm: its start's weights would replace MODEL.WEIGHTS"),
        ({**MINIMAL, "protocols": {"long": {}, "warm": {"start": {}}}, "variants": [
            {"name": "v", "overrides": {"MODEL.WEIGHTS": "a"}}]}, "protocols.warm: its start's"),
        ({**MINIMAL, "protocols": {}}, "names no protocol"),
        ({**MINIMAL, "variants": [{"name": "start", "overrides": {}}]}, "start is no name"),
        ({**MINIMAL, "variants": [{"name": "a/b", "overrides": {}}]}, "a name is letters"),
        ({**MINIMAL, "variants": [{"name": "a"}]}, "overrides of variant a must be a mapping"),
        ({**MINIMAL, "variants": [{"name": "a", "configs": ["configs/B/y.yaml"], "overrides": {}}]},
         "configs/B/y.yaml is not among the experiment's configs"),
        ({**MINIMAL, "variants": [{"name": "a", "overrides": {}}] * 2}, "must not repeat"),
        ({**MINIMAL, "paper": {"source": "T", "metrics": ["AP"], "figures":
          {"configs/A/x.yaml": {"static": [1, 2]}}}}, r"numbers for \['AP'\], got \[1, 2\]"),
        ({**MINIMAL, "paper": {"source": "T", "metrics": ["AP"], "figures":
          {"configs/A/x.yaml": {"static": ["n/a"]}}}}, r"x.yaml.static must have numbers"),
        ({**MINIMAL, "paper": {"source": "T", "metrics": ["AP"], "figures":
          {"configs/B/y.yaml": {"static": [1]}}}}, "paper.figures: configs/B/y.yaml is not among"),
        ({**MINIMAL, "paper": {"source": "T", "metrics": [50], "figures": {}}}, "names such as AP"),
        ({**MINIMAL, "paper": {"source": "T", "metrics": ["mAP"], "figures": {}}},
         "paper.metrics: no table has mAP; choose from AP, AP50"),
        ({**MINIMAL, "strategies": [["static"]]}, "some of static, .* got \\['static'\\]"),
        ("seeds: [1]\noverrides: {A.B: 2024-13-01}", "mine.yaml: month must be in 1..12"),
        ({**MINIMAL, "folds": FOLDS, "overrides": {"DATASETS.TEST": ["d"]}},
         "folds: they make the data sets, which DATASETS.TEST would replace"),
        ({**MINIMAL, "folds": FOLDS, "protocols": {"a": {"start": {"DATASETS.TRAIN": ["d"]}}}},
         "folds: .* which DATASETS.TRAIN would replace"),
        ("seeds: [1]\noverrides: {A.B: 1}\noverrides: {A.C: 1}", "overrides is there twice, once"),
    ],
)  # fmt: skip
def test_mistakes_are_named_in_one_sentence(tmp_path, content, message):
    with pytest.raises(ExperimentError, match=message) as error:
        load(tmp_path, content)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(ExperimentError, match="there is no file .*nowhere.yaml"):
        load_experiment(tmp_path / "nowhere.yaml", Path("out"))
