"""What is found before the runs; tests/tools/test_experiment.py has what the tool makes of it."""

import copy

import pytest
import yaml

from mutual_guidance.data import register
from mutual_guidance.engine import precision
from mutual_guidance.errors import ExperimentError
from mutual_guidance.experiments.grid import load_experiment
from mutual_guidance.experiments.plan import make_plans
from mutual_guidance.experiments.records import difference, launch
from tests.conftest import REPOSITORY
from tests.pretend_gpu import pretend_gpu


@pytest.fixture
def plan_of(voc, voc_entry, tmp_path):
    """Makes the plans of a static run on a drawn image, and of a variant with other overrides."""
    voc.add("a", [("red", (3, 5, 24, 40))])
    data = {f"DATASETS.{part}": [voc_entry["name"]] for part in ("TRAIN", "TEST")}

    def make(overrides=(), variant=None, strategies=("static",), of_variant=("static",)):
        content = {
            "configs": ["configs/Shapes/retinanet_R_18.yaml"],
            "strategies": list(strategies),
            "seeds": [1],
            "overrides": {**data, "DATASETS.REGISTER": [voc_entry], **dict(overrides)},
            "variants": [{"name": "v", "overrides": variant, "strategies": list(of_variant)}]
            if variant
            else [],
        }
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content))
        cells = load_experiment(tmp_path / "mine.yaml", tmp_path / "out").cells
        return make_plans(REPOSITORY, cells)

    return make


def test_a_name_stands_for_one_data_set(plan_of, voc_entry):
    again = copy.deepcopy(voc_entry)
    assert len(plan_of(variant={"DATASETS.REGISTER": [again]})) == 2
    again["split"] = "test"
    with pytest.raises(ExperimentError, match=f"v/static/seed_1: .* the name {again['name']} to"):
        plan_of(variant={"DATASETS.REGISTER": [again]})


def test_a_variant_is_tested_on_what_its_baseline_is(plan_of, voc_entry):
    other = {**voc_entry, "name": f"{voc_entry['name']}_other"}
    moved = {"DATASETS.REGISTER": [voc_entry, other], "DATASETS.TEST": [other["name"]]}
    assert len(plan_of(variant=moved)) == 2  # it has a static run of its own
    with pytest.raises(ExperimentError, match="add static to the strategies of the variant v"):
        plan_of(variant=moved, of_variant=["mutual_guidance"])


def test_runs_on_other_data_do_not_go_together(plan_of, voc, monkeypatch):
    path, launches = voc.root / "Annotations" / "a.xml", []
    text = path.read_text()
    for right in (24, 24, 25):
        path.write_text(text.replace("<xmax>24<", f"<xmax>{right}<"))
        monkeypatch.setattr(register, "_loaded", {})  # another process
        ((cell, plan),) = plan_of().items()
        launches.append(launch(cell, {cell: plan.config}))
    assert not difference(*launches[:2])
    assert "a run with the contents of DATASETS '" in difference(*launches[1:])


def test_what_lies_between_the_fields_of_objects_is_no_data(plan_of, voc_entry):
    (first,) = plan_of().values()
    (record,) = register.records_of(voc_entry["name"])
    raw, fields = record.objects.view("u1").reshape(1, -1), record.objects.dtype.fields
    used = {at + i for kind, at in fields.values() for i in range(kind.itemsize)}
    raw[:, sorted(set(range(raw.shape[1])) - used)] ^= 255
    (second,) = plan_of().values()
    assert len(used) < raw.shape[1] and second == first


def test_what_every_run_would_refuse_is_unfit(plan_of, voc_entry):
    (plan,) = plan_of().values()
    assert (plan.unfit, plan.missing, plan.device) == ("", "", "cpu")
    other = {**voc_entry, "name": f"{voc_entry['name']}_test", "classes": ["green", "red"]}
    for overrides, reason in (
        ({"MODEL.DEVICE": "cuda"}, "MODEL.DEVICE is 'cuda', but PyTorch finds no such GPU"),
        ({"MODEL.DEVICE": "cuda:1"}, "MODEL.DEVICE is 'cuda:1', but each run sees one GPU"),
        ({"MODEL.WEIGHTS": "mine.pth"}, "MODEL.WEIGHTS: there is no file mine.pth"),
        ({"SOLVER.REFERENCE_WORLD_SIZE": 8}, "REFERENCE_WORLD_SIZE 8 would scale the batch"),
        (
            {"DATASETS.REGISTER": [voc_entry, other], "DATASETS.TEST": [other["name"]]},
            "DATASETS.TRAIN and DATASETS.TEST differ in their classes",
        ),
    ):
        (plan,) = plan_of(overrides).values()
        assert reason in plan.unfit


def test_a_device_that_is_not_there_is_told_without_the_data(plan_of, voc):
    (voc.root / "ImageSets" / "Main" / "train.txt").unlink()
    (plan,) = plan_of({"MODEL.DEVICE": "cuda"}).values()
    assert plan.missing and "PyTorch finds no such GPU" in plan.unfit


def test_a_strategy_that_would_never_begin_is_unfit_and_no_other(plan_of):
    overrides = {"SOLVER.MAX_ITER": 9, "MODEL.MUTUAL_GUIDANCE.STATIC_ITERS": 9}
    always = {"MODEL.MUTUAL_GUIDANCE.STATIC_ITERS": 0}
    both = ["static", "mutual_guidance"]
    plans = plan_of(overrides, always, both, both)
    unfit = {(cell.variant, cell.strategy) for cell, plan in plans.items() if plan.unfit}
    assert unfit == {("", "mutual_guidance")}


def test_gpus_of_two_precisions_are_not_shared_out(plan_of, monkeypatch):
    with pretend_gpu(), monkeypatch.context() as patched:
        plan_of({"SOLVER.AMP.ENABLED": True})
        patched.setattr("torch.cuda.device_count", lambda: 2)
        patched.setattr(
            "torch.cuda.get_device_capability", lambda gpu: (7, 5) if gpu == "cuda:1" else (8, 0)
        )
        with pytest.raises(ExperimentError, match="auto is bfloat16 on some and float16 on others"):
            plan_of({"SOLVER.AMP.ENABLED": True})


def test_runs_of_two_precisions_do_not_go_together(plan_of, monkeypatch):
    launches = []
    for has_bfloat16 in (True, False):
        monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda has=has_bfloat16: has)
        plans = plan_of({"SOLVER.AMP.ENABLED": True, "MODEL.DEVICE": "cpu"})
        (cell,) = plans
        launches.append(launch(cell, {cell: plans[cell].config}))
    text = "a run with SOLVER.AMP.PRECISION auto 'bfloat16' where the experiment has 'float32'"
    assert difference(*launches) == text
    (plan,) = plan_of({"SOLVER.AMP.ENABLED": False}).values()
    assert "SOLVER.AMP.PRECISION auto" not in plan.config


def test_an_infinite_number_is_kept_as_text(plan_of):
    (plan,) = plan_of({"SOLVER.CLIP_GRADIENTS.NORM_TYPE": "1e999"}).values()
    assert plan.config["SOLVER.CLIP_GRADIENTS.NORM_TYPE"] == "Infinity"
