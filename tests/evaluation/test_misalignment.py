import json
import uuid

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import BoxMode
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from matplotlib.figure import Figure

from mutual_guidance.config import load_config
from mutual_guidance.data import Record, register_datasets
from mutual_guidance.data.records import FoundObject, pack_objects
from mutual_guidance.engine import Trainer
from mutual_guidance.evaluation import (
    MisalignmentEvaluator,
    build_evaluator,
    candidates_in_outputs,
)
from mutual_guidance.evaluation.ground_truth import class_ious, ground_truths
from mutual_guidance.evaluation.misalignment import (
    MIN_IOU,
    MIN_RANKED,
    _distribution,
    align,
    measure,
    metrics,
    summarize,
    suppressed,
)
from mutual_guidance.evaluation.misalignment_plot import draw_lost, draw_suppressed
from tests.conftest import REPOSITORY, predicted
from tests.runs import CONFIG

FCOS = str(REPOSITORY / "configs" / "PascalVOC-Detection" / "fcos_R_18.yaml")


def truth(*objects):
    """Of an image with these objects."""
    return ground_truths(Record("", 0, 100, 100, pack_objects(objects, 100, 100, "")[0]))


def annotated(box, category=0, **flags):
    return FoundObject(box, category, "", **flags)


def test_one_ground_truth_by_hand():
    # The ground truth is 10 pixels wide and 100 high; boxes of width w from its left edge and of
    # its height have IoU w / 10.
    gts = truth(annotated([0, 0, 10, 100]))
    widths, scores = [6, 9, 8, 5], [0.9, 0.6, 0.7, 0.2]
    boxes = [[0, 0, w, 100] for w in widths]
    candidates = predicted(boxes, scores, [0] * 4, kept=[True, False, False, True])
    detections = candidates[torch.tensor([0, 3])]
    measured = measure(candidates, detections, gts)
    # Before: the best-scored has IoU 0.6, the best IoU is 0.9. Ranks of the IoUs are 2, 4, 3, 1
    # and of the scores 4, 2, 3, 1: differences 2, 2, 0, 0, so 1 - 6 * 8 / (4 * 15) = 0.2.
    assert measured["top_iou_before"] == pytest.approx([0.6])
    assert measured["best_iou_before"] == pytest.approx([0.9])
    assert measured["rank_correlation_before"] == pytest.approx([0.2])
    # After: 0.6 is the best-scored and the best-localised one; two are too few to rank.
    assert measured["top_iou_after"] == measured["best_iou_after"] == pytest.approx([0.6])
    assert np.isnan(measured["rank_correlation_after"]).all()
    # NMS took 0.9 and left 0.6 at best.
    assert measured["suppressed"].tolist() == [1.0]

    means = metrics(summarize("x", measured))
    assert means["iou_lost_before"] == pytest.approx(0.3) and means["iou_lost_after"] == 0
    assert means["suppressed"] == means["found_before"] == means["found_after"] == 1


def test_predictions_belong_to_the_ground_truth_of_their_class_that_they_overlap_most():
    gts = truth(
        annotated([0, 0, 10, 10]),
        annotated([5, 0, 15, 10]),
        annotated([0, 0, 10, 10], category=1),
        annotated([50, 50, 60, 60], category=1),
    )
    # The first overlaps both of class 0: 10/10 with the first, 5/15 with the second. The second
    # belongs to the second: 9/11 against 6/14. The third is of class 1. The last belongs to none:
    # its IoU with the fourth is 5/195, below 0.1.
    boxes = [[0, 0, 10, 10], [4, 0, 14, 10], [0, 0, 10, 5], [59.5, 50, 69.5, 60]]
    preds = predicted(boxes, [0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1])
    alignment = align(class_ious(preds, gts), preds.scores.numpy())
    assert alignment.top_iou[:3] == pytest.approx([1.0, 9 / 11, 0.5])
    assert np.isnan(alignment.top_iou[3]) and np.isnan(alignment.best_iou[3])


def test_crowds_and_difficult_objects_own_predictions_but_do_not_count():
    gts = truth(
        annotated([0, 0, 10, 10], crowd=True),
        annotated([0, 0, 9, 10]),
        annotated([50, 50, 60, 60], difficult=True),
    )
    preds = predicted([[0, 0, 10, 10], [0, 0, 8, 10]], [0.9, 0.3], [0, 0], kept=[True, True])
    measured = measure(preds, preds, gts)
    # The first fits the crowd best; the second has IoU 80/100 with it and 80/90 with its object.
    assert measured["top_iou_before"] == pytest.approx([80 / 90])
    assert all(len(v) == 1 for v in measured.values())


def test_an_equally_good_survivor_is_no_loss():
    best = np.array([0.8, 0.8, np.nan])
    kept = np.array([[0.8, 0.7, 0.0], [0.1, 0.75, 0.05]])
    assert suppressed(best, kept)[:2].tolist() == [0.0, 1.0]
    assert np.isnan(suppressed(best, kept)[2])
    assert suppressed(best, np.zeros((0, 3)))[:2].tolist() == [1.0, 1.0]


def slow_ranks(values):
    return [sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def slow_align(ious, scores):
    """As its definitions read, one ground truth at a time."""
    num_preds, num_gts = ious.shape
    rows = []
    for m in range(num_gts):
        own = [
            p
            for p in range(num_preds)
            if ious[p, m] >= MIN_IOU and m == min(np.flatnonzero(ious[p] == ious[p].max()))
        ]
        if not own:
            rows.append((np.nan,) * 3)
            continue
        x, y = [scores[p] for p in own], [ious[p, m] for p in own]
        correlation = np.nan
        if len(own) >= MIN_RANKED and len(set(x)) > 1 and len(set(y)) > 1:
            correlation = np.corrcoef(slow_ranks(x), slow_ranks(y))[0, 1]
        rows.append((y[x.index(max(x))], max(y), correlation))
    return np.array(rows).reshape(num_gts, 3).T


@given(st.data())
def test_equals_the_slow_reference(data):
    shape = data.draw(st.tuples(st.integers(0, 12), st.integers(0, 4)))
    levels = st.integers(0, 6).map(lambda v: v / 6)  # few levels: many ties
    ious = data.draw(stnp.arrays(float, shape, elements=levels))
    scores = data.draw(stnp.arrays(float, shape[0], elements=levels))
    assert np.allclose(align(ious, scores), slow_align(ious, scores), equal_nan=True)


def test_nothing_to_measure_is_null_not_nan(tmp_path):
    nothing = predicted([], [], [], kept=np.ones(0, bool))
    gts = truth()
    details = summarize("x", measure(nothing, nothing, gts))
    json.dumps(details, allow_nan=False)
    assert details["num_gts"] == 0 and np.isnan(metrics(details)["suppressed"])
    axes = Figure().subplots()
    draw_suppressed(axes, {"x": details})
    (text,) = axes.texts
    assert text.get_text() == " x: n/a"


def toy_set(voc, entry):
    voc.add("a", [("red", (3, 5, 24, 40)), ("blue", (34, 34, 60, 58))])
    voc.add("b", [("green", (10, 15, 50, 35))])
    register_datasets([entry])
    return entry["name"]


def untrained(config, name, tmp_path, *opts):
    sets = ["DATASETS.TRAIN", (name,), "DATASETS.TEST", (name,), "OUTPUT_DIR", str(tmp_path)]
    classes = ["MODEL.RETINANET.NUM_CLASSES", 3, "MODEL.FCOS.NUM_CLASSES", 3]
    more = ["MODEL.WEIGHTS", "", "MODEL.DEVICE", "cpu", "INPUT.SQUARE_SIZE", 64]
    more += ["DATALOADER.NUM_WORKERS", 0, "MODEL.FCOS.SCORE_THRESH_TEST", 0.005]
    cfg = load_config(config, [*sets, *classes, *more, *opts])
    return cfg, Trainer.build_model(cfg)


@pytest.mark.parametrize("config", [CONFIG, FCOS])
def test_candidates_become_the_detections(config, voc, voc_entry, tmp_path):
    cfg, model = untrained(config, toy_set(voc, voc_entry), tmp_path)
    model.eval()
    loader = Trainer.build_test_loader(cfg, voc_entry["name"])
    inputs = [x for batch in loader for x in batch]
    inputs[0] |= {"height": 32, "width": 128}  # the outputs are scaled, and not alike in x and y
    with torch.no_grad():
        plain = model(inputs)
        with candidates_in_outputs(model):
            outputs = model(inputs)
        again = model(inputs)
    assert all("candidates" not in output for output in again)
    for before, output in zip(plain, outputs, strict=True):
        detections, candidates = output["instances"], output["candidates"]
        assert torch.equal(before["instances"].scores, detections.scores)
        assert 0 < len(detections) < len(candidates)
        kept = candidates[candidates.kept]
        kept = kept[kept.scores.argsort(descending=True, stable=True)]
        kept = kept[: model.max_detections_per_image]
        for field in ("scores", "pred_classes"):
            assert torch.equal(kept.get(field), detections.get(field))
        assert torch.equal(kept.pred_boxes.tensor, detections.pred_boxes.tensor)


def test_other_models_are_refused():
    with (
        pytest.raises(TypeError, match="Linear is no dense detector"),
        candidates_in_outputs(torch.nn.Linear(1, 1)),
    ):
        pass


def test_outputs_without_candidates_are_refused(voc, voc_entry, tmp_path):
    evaluator = MisalignmentEvaluator(toy_set(voc, voc_entry), str(tmp_path))
    evaluator.reset()
    with pytest.raises(ValueError, match="inside candidates_in_outputs"):
        evaluator.process([{"image_id": "a"}], [{"instances": predicted([], [], [])}])


def test_beside_average_precision_and_off_by_default(voc, voc_entry, tmp_path):
    name = toy_set(voc, voc_entry)
    cfg, model = untrained(CONFIG, name, tmp_path, "TEST.MISALIGNMENT", True)
    assert isinstance(build_evaluator(cfg, name), DatasetEvaluators)
    results = Trainer.test(cfg, model)
    written = json.loads((tmp_path / "evaluation.json").read_text())[name]
    assert results.keys() == written.keys() == {"bbox", "misalignment"}
    details = json.loads((tmp_path / "misalignment" / f"{name}.json").read_text())
    assert details["num_gts"] == 3 and details["before"]["found"] == 1
    assert written["misalignment"]["iou_lost_before"] == details["before"]["iou_lost"]["mean"]
    assert (tmp_path / "misalignment" / f"{name}.png").stat().st_size > 5000

    cfg, _ = untrained(CONFIG, name, tmp_path)
    assert Trainer.test(cfg, model).keys() == {"bbox"}


def test_shares_among_processes(voc, voc_entry, tmp_path, monkeypatch):
    """What two processes saw is put together in the first one; the second returns nothing."""
    name = toy_set(voc, voc_entry)
    boxes = [[2, 4, 24, 40]]
    output = {"instances": predicted(boxes, [0.5], [0])}
    output["candidates"] = predicted(boxes, [0.5], [0], kept=[True])
    evaluators = [MisalignmentEvaluator(name, str(tmp_path)) for _ in range(2)]
    for evaluator, image_id in zip(evaluators, ("a", "b"), strict=True):
        evaluator.reset()
        evaluator.process([{"image_id": image_id}], [output])
    module = "mutual_guidance.evaluation.misalignment.comm"
    monkeypatch.setattr(f"{module}.gather", lambda rows, dst: [e._rows for e in evaluators])
    means = evaluators[0].evaluate()["misalignment"]
    assert means["found_before"] == pytest.approx(1 / 3)  # "red" of a; not its "blue", nor b's
    monkeypatch.setattr(f"{module}.is_main_process", lambda: False)
    assert evaluators[1].evaluate() is None


def test_any_registered_set(real_data, tmp_path):
    """COCO as Detectron2 registers it: its boxes are XYWH and its crowds do not count."""
    name, root = f"test_{uuid.uuid4().hex}", real_data / "coco"
    json_file = root / "annotations" / "instances_val2017.json"
    register_coco_instances(name, {}, str(json_file), str(root / "val2017"))
    records = DatasetCatalog.get(name)
    evaluator = MisalignmentEvaluator(name, str(tmp_path))
    evaluator.reset()
    num_objects = 0
    for record in records:
        objects = [a for a in record["annotations"] if not a.get("iscrowd")]
        num_objects += len(objects)
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in objects]
        found = boxes, np.full(len(boxes), 0.5), [a["category_id"] for a in objects]
        candidates = predicted(*found, kept=np.ones(len(boxes), bool))
        evaluator.process([record], [{"instances": predicted(*found), "candidates": candidates}])
    means = evaluator.evaluate()["misalignment"]
    assert means["best_iou_before"] > 0.999 and means["suppressed"] == 0
    assert means["found_after"] == pytest.approx(1.0, abs=2 / num_objects)


def test_a_distribution_has_quantiles_and_a_histogram_from_its_lowest_value():
    told = _distribution(np.array([-0.5, 0.5, np.nan, 1.0]), low=-1)
    assert (told["num"], told["mean"]) == (3, pytest.approx(1 / 3))
    assert told["quantiles"]["0.1"] == pytest.approx(-0.3)
    assert told["quantiles"]["0.9"] == pytest.approx(0.9)
    counts, edges = told["histogram"]["counts"], told["histogram"]["edges"]
    assert (edges[0], edges[-1]) == (-1, 1)
    assert [edges[i] for i, count in enumerate(counts) if count] == [-0.5, 0.5, 0.9]


def test_the_curve_of_what_is_lost_starts_with_those_that_lose_nothing():
    losses = {"iou_lost": _distribution(np.array([0.0, 0.0, 0.0, 1.0]))}
    axes = Figure().subplots()
    draw_lost(axes, {"run": {"before": losses, "after": losses}})
    curve = axes.lines[0].get_xydata()
    assert curve[0].tolist() == [0.05, 0.75] and curve[-1].tolist() == [1.0, 1.0]
