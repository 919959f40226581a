import pytest

from mutual_guidance.config import load_config
from mutual_guidance.errors import ConfigError
from mutual_guidance.run_files import flatten
from mutual_guidance.typed import fit_pairs, fit_values, nearest_keys, pairs_of
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def cfg():
    return load_config(str(REPOSITORY / "configs" / "Base-Anchors.yaml"), [])


def test_pairs():
    assert pairs_of(["A.B", "1", "C=x=y", "D", "e=f"]) == [("A.B", "1"), ("C", "x=y"), ("D", "e=f")]
    assert pairs_of(["MODEL.WEIGHTS", ""]) == [("MODEL.WEIGHTS", "")]
    with pytest.raises(ConfigError, match="SEED is followed by no value"):
        pairs_of(["OUTPUT_DIR", "out", "SEED"])


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("SOLVER.EPOCHS", "1", 1.0),
        ("SOLVER.MAX_ITER", "1e3", 1000),
        ("SOLVER.AMP.ENABLED", "true", True),
        ("SOLVER.AMP.ENABLED", "False", False),
        ("SOLVER.STEPS", "1000", (1000,)),
        ("SOLVER.STEPS", "(10, 20)", (10, 20)),
        ("DATASETS.TRAIN", "mine_train", ("mine_train",)),
        ("DATASETS.TRAIN", "a,b", ("a", "b")),
        ("DATASETS.TRAIN", "(a, b,)", ("a", "b")),
        ("DATASETS.TRAIN", "('a', 'b')", ("a", "b")),
        ("OUTPUT_DIR", "2024", "2024"),
        ("OUTPUT_DIR", "'out'", "out"),
        ("MODEL.WEIGHTS", "", ""),
        ("MODEL.MUTUAL_GUIDANCE.STRATEGY", "static", "static"),
    ],
)
def test_values_are_of_the_kind_of_their_key(cfg, key, text, value):
    changed = cfg.clone()
    changed.merge_from_list(fit_pairs([(key, text)], cfg))
    got = flatten(changed)[key]
    assert got == value and type(got) is type(value)


def test_values_of_a_file(cfg):
    fitted = fit_values(
        {"SOLVER": {"EPOCHS": 50, "AMP": {"ENABLED": True}}, "DATASETS": {"TEST": "mine"},
         "OUTPUT_DIR": 5, "OTHER": {"X": 1}}, cfg
    )  # fmt: skip
    assert fitted == {
        "SOLVER": {"EPOCHS": 50.0, "AMP": {"ENABLED": True}}, "DATASETS": {"TEST": ("mine",)},
        "OUTPUT_DIR": "5", "OTHER": {"X": 1},
    }  # fmt: skip
    assert type(fitted["SOLVER"]["EPOCHS"]) is float


def test_nearest_keys():
    known = ["SOLVER.EPOCHS", "MODEL.GUIDANCE.STRATEGY", "MODEL.GUIDANCE.SIGMA", "SEED"]
    assert nearest_keys("STRATEGY", known) == ["MODEL.GUIDANCE.STRATEGY"]
    assert nearest_keys("solver.epochs", known) == ["SOLVER.EPOCHS"]
    assert nearest_keys("SOLVER.EPOCH", known) == ["SOLVER.EPOCHS"]
    assert nearest_keys("STRATEGIE", known) == ["MODEL.GUIDANCE.STRATEGY"]
    assert nearest_keys("NOTHING.LIKE.IT", known) == []
