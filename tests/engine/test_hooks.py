import json
import logging
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.env import seed_all_rng
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from mutual_guidance.config import load_config
from mutual_guidance.data import register_datasets
from mutual_guidance.engine import Trainer, hooks
from mutual_guidance.engine.hooks import (
    AssignmentPictures,
    DataWait,
    FirstProgress,
    KeepBest,
    ThinCheckpoints,
    mean_ap,
)
from mutual_guidance.engine.setup import resolve_classes
from tests.conftest import REPOSITORY, TINY

TINIEST = dict(zip(TINY[::2], TINY[1::2], strict=True))
# Detectron2's own resizing, which draws its size at random even for testing, and the square.
CONFIGS = {
    "Shapes/retinanet_R_18.yaml": ["INPUT.SQUARE_SIZE", 64, "INPUT.SSD_AUGMENTATION", True],
    "PascalVOC-Detection/fcos_R_18.yaml": [
        "INPUT.SQUARE_SIZE", 0, "INPUT.MIN_SIZE_TRAIN", "(64, 72)", "INPUT.MIN_SIZE_TEST", 64,
    ],
}  # fmt: skip


@pytest.mark.parametrize(("waited", "told"), [(0.3, 0), (0.6, 1)])
def test_a_training_that_waits_for_images_is_told_once(waited, told, storage, caplog):
    hook = DataWait(4)
    hook.trainer = SimpleNamespace(start_iter=10, storage=storage)
    for hook.trainer.iter in range(10, 200):
        storage.put_scalars(data_time=waited, time=1.0)
        hook.after_step()
    assert len(caplog.records) == told
    assert not told or "Of the 1 s of an iteration 0.6 are spent waiting" in caplog.text


@pytest.fixture
def make_cfg(voc, voc_entry, tmp_path):
    """A function that makes the config of a short training on three small images."""
    voc.add("a", [("red", (3, 5, 40, 40)), ("blue", (34, 34, 60, 58))])
    voc.add("b", [("green", (10, 15, 50, 45))])
    voc.add("empty", [])
    register_datasets([voc_entry])

    def make(config="Shapes/retinanet_R_18.yaml", **opts):
        opts = {
            **TINIEST, "DATASETS.TRAIN": (voc_entry["name"],), "DATASETS.TEST": (),
            "SOLVER.IMS_PER_BATCH": 2, "SOLVER.MAX_ITER": 4, "SOLVER.WARMUP_ITERS": 0,
            "SOLVER.AMP.ENABLED": False, "TEST.PRECISE_BN.ENABLED": False,
            "OUTPUT_DIR": str(tmp_path / "out"), **opts,
        }  # fmt: skip
        pairs = [x for pair in opts.items() for x in pair]
        cfg = load_config(str(REPOSITORY / "configs" / config), [*pairs, *CONFIGS[config]])
        resolve_classes(cfg)
        (tmp_path / "out").mkdir(exist_ok=True)
        return cfg

    return make


def train(cfg, resume=False):
    seed_all_rng(1)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    trainer.train()
    return trainer


def random_states():
    return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()


def records(cfg):
    path = f"{cfg.OUTPUT_DIR}/visualization/assignments/counts.jsonl"
    with open(path) as f:
        return [json.loads(line) for line in f]


@pytest.mark.parametrize("config", CONFIGS)
def test_training_is_the_same_bit_for_bit(config, make_cfg):
    results = []
    for period in (0, 2):
        trainer = train(make_cfg(config, VIS_PERIOD=period))
        optimizer = [s["momentum_buffer"] for s in trainer.optimizer.state.values()]
        gradients = [p.grad for p in trainer.model.parameters()]
        tensors = [*trainer.model.state_dict().values(), *optimizer, *gradients]
        modes = [m.training for m in trainer.model.modules()]
        results.append((tensors, modes, random_states()))
        del trainer
    (tensors, *rest), (other_tensors, *other_rest) = results
    assert all(torch.equal(a, b) for a, b in zip(tensors, other_tensors, strict=True))
    assert rest == other_rest


def test_choosing_the_images_draws_no_random_number(make_cfg):
    # Detectron2's own resizing draws a size even where there is one to choose from.
    hook = AssignmentPictures(make_cfg("PascalVOC-Detection/fcos_R_18.yaml", VIS_PERIOD=1))
    hook.trainer = SimpleNamespace(start_iter=0)
    before = random_states()
    hook.before_train()
    assert random_states() == before


def test_pictures_in_the_folder_and_in_the_event_storage(make_cfg):
    cfg = make_cfg(VIS_PERIOD=3)
    train(cfg)
    # After the first, the third and the last of four iterations; the empty image is left out.
    drawn = [(r["image"], r["iteration"]) for r in records(cfg)]
    assert drawn == [(name, i) for i in (0, 2, 3) for name in ("a", "b")]
    folder = f"{cfg.OUTPUT_DIR}/visualization/assignments"
    for record in records(cfg):
        with open(f"{folder}/{record['file']}", "rb") as f:
            assert f.read(4) == b"\x89PNG"
    assert records(cfg)[0]["file"] == "a/0000000.png"
    assert records(cfg)[0]["counts"]["ground_truths"] == 2

    events = EventAccumulator(cfg.OUTPUT_DIR)
    events.Reload()
    assert set(events.Tags()["images"]) == {"assignments/a", "assignments/b"}
    assert [e.step for e in events.Images("assignments/a")] == [0, 2, 3]


def test_nothing_happens_without_a_period(make_cfg, tmp_path):
    cfg = make_cfg(VIS_PERIOD=0)
    assert not any(isinstance(h, AssignmentPictures) for h in Trainer(cfg)._hooks)
    assert not (tmp_path / "out" / "visualization").exists()


def test_other_processes_draw_nothing(make_cfg, monkeypatch):
    trainer = Trainer(make_cfg(VIS_PERIOD=1))
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    assert not any(isinstance(h, AssignmentPictures) for h in trainer.build_hooks())


def test_resumed_run_draws_nothing_twice(make_cfg, tmp_path):
    cfg = make_cfg(VIS_PERIOD=1, **{"SOLVER.CHECKPOINT_PERIOD": 2})
    train(cfg)
    drawn = [(r["iteration"], r["image"]) for r in records(cfg)]
    assert len(drawn) == 8
    # As if the run had died after iteration 3, with the checkpoint of iteration 1 the last one.
    (tmp_path / "out" / "last_checkpoint").write_text("model_0000001.pth")
    train(cfg, resume=True)
    assert [(r["iteration"], r["image"]) for r in records(cfg)] == drawn
    # A new run into the same folder starts from an empty list.
    train(make_cfg(VIS_PERIOD=3))
    assert [r["iteration"] for r in records(cfg)] == [0, 0, 2, 2, 3, 3]


def test_a_picture_that_cannot_be_written_is_told_and_ends_nothing(make_cfg, tmp_path, caplog):
    cfg = make_cfg(VIS_PERIOD=4)
    (tmp_path / "out" / "visualization").write_text("a file where the folder should be")
    with caplog.at_level(logging.ERROR):
        train(cfg)
    assert "The assignments of a, iteration 3 could not be written to" in caplog.text
    assert "the training goes on without this picture" in caplog.text
    assert (tmp_path / "out" / "model_final.pth").exists()


def test_draws_the_detector_inside_distributed_data_parallel(make_cfg, tmp_path, storage):
    cfg = make_cfg(VIS_PERIOD=1)
    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        hook = AssignmentPictures(cfg)
        hook.trainer = SimpleNamespace(
            model=DistributedDataParallel(build_model(cfg)),
            storage=storage, iter=0, start_iter=0, max_iter=1,
        )  # fmt: skip
        hook.before_train()
        hook.after_step()
    finally:
        dist.destroy_process_group()
    assert [r["image"] for r in records(cfg)] == ["a", "b"]
    assert len(storage._vis_data) == 2


def run_hook(hook, iterations, max_iter, before=lambda i: None):
    """The hook in a training of those iterations."""
    hook.trainer = SimpleNamespace(
        start_iter=iterations[0], max_iter=max_iter, iter=0,
        storage=SimpleNamespace(latest=lambda: {"total_loss": (1.5, 0)}),
    )  # fmt: skip
    hook.before_train()
    for i in iterations:
        hook.trainer.iter = i
        before(i)
        hook.before_step()
        hook.after_step()
    hook.trainer.iter = iterations[-1] + 1  # as Detectron2's train loop
    hook.after_train()


def test_the_first_loss_is_told_once(caplog):
    with caplog.at_level("INFO"):
        run_hook(FirstProgress(), range(7, 12), 12)
    (record,) = caplog.records
    assert "iter: 7  total_loss: 1.5" in record.message and "4 to go" in record.message


@pytest.mark.parametrize(("keep", "left"), [(1, ["final"]), (3, ["0000007", "0000009", "final"])])
def test_old_checkpoints_are_removed(tmp_path, keep, left):
    cfg = SimpleNamespace(
        OUTPUT_DIR=str(tmp_path),
        SOLVER=SimpleNamespace(CHECKPOINT_PERIOD=2, CHECKPOINT_KEEP=keep),
    )
    names = []

    def save(i):
        for name in [f"{i:07d}"] * (i % 2) + ["final"] * (i == 9):
            torch.save({"model": {}, "iteration": i}, tmp_path / f"model_{name}.pth")
        (tmp_path / "model_best.pth").touch()
        names.append(len(list(tmp_path.glob("model_0*.pth"))))

    run_hook(ThinCheckpoints(cfg), range(10), 10, save)
    assert sorted(p.stem[6:] for p in tmp_path.glob("model_*.pth")) == sorted([*left, "best"])
    assert max(names) <= keep + 1


def test_a_checkpoint_that_is_gone_already_is_no_fault(tmp_path, monkeypatch):
    cfg = SimpleNamespace(
        OUTPUT_DIR=str(tmp_path), SOLVER=SimpleNamespace(CHECKPOINT_PERIOD=1, CHECKPOINT_KEEP=1)
    )
    gone = [str(tmp_path / f"model_000000{i}.pth") for i in range(3)]
    monkeypatch.setattr(hooks, "checkpoint_files", lambda folder: gone)
    run_hook(ThinCheckpoints(cfg), range(1), 1)


@pytest.mark.parametrize("content", [b"", b"torn", {"model": {}}, {"AP": None}])
def test_best_weights_that_are_torn_are_replaced(tmp_path, content, caplog):
    path = tmp_path / "model_best.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    cfg = SimpleNamespace(OUTPUT_DIR=str(tmp_path), TEST=SimpleNamespace(EVAL_PERIOD=1))
    hook = KeepBest(torch.nn.Linear(1, 1), cfg)
    hook.trainer = SimpleNamespace(
        start_iter=1, max_iter=9, iter=1, _last_eval_results={"bbox": {"AP": 1.0}}
    )
    hook.before_train(), hook.after_step()
    assert "model_best.pth cannot be read: the next" in caplog.text
    assert torch.load(path, weights_only=True)["AP"] == 1.0


def test_hooks_that_would_have_nothing_to_work_on_are_left_out(make_cfg):
    cfg = make_cfg(VIS_PERIOD=1, **{"TEST.EVAL_PERIOD": 2, "SOLVER.CHECKPOINT_KEEP": 0})

    def kinds():
        return {type(hook) for hook in Trainer(cfg)._hooks}

    assert not kinds() & {KeepBest, ThinCheckpoints}  # without data to test on
    cfg.DATASETS.TEST = cfg.DATASETS.TRAIN
    assert KeepBest in kinds()
    cfg.TEST.KEEP_BEST, cfg.SOLVER.CHECKPOINT_KEEP = False, 1
    assert KeepBest not in kinds() and ThinCheckpoints in kinds()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.RETINANET.BBOX_REG_LOSS_TYPE = "RetinaNet", "giou"
    assert AssignmentPictures not in kinds()


def test_the_best_weights_are_kept_over_a_resume(tmp_path):
    model = torch.nn.Linear(1, 1, bias=False)
    cfg = SimpleNamespace(OUTPUT_DIR=str(tmp_path), TEST=SimpleNamespace(EVAL_PERIOD=2))
    aps = {1: float("nan"), 3: 20.0, 5: 30.0, 7: 25.0, 9: 29.0, 11: 31.0}

    def run(iterations):
        hook = KeepBest(model, cfg)

        def evaluated(i):
            model.weight.data.fill_(i)
            hook.trainer._last_eval_results = {"bbox": {"AP": aps.get(i, 0.0)}}

        run_hook(hook, iterations, 12, evaluated)
        kept = torch.load(tmp_path / "model_best.pth", weights_only=True)
        return kept["iteration"], kept["AP"], kept["model"]["weight"].item()

    assert run(range(8)) == (5, 30.0, 5.0)
    assert run(range(8, 11)) == (5, 30.0, 5.0)  # 29 after the resume is not the best
    assert run(range(8, 12)) == (11, 31.0, 11.0)


def test_ap_of_several_data_sets_is_their_mean():
    assert mean_ap({"bbox": {"AP": 3.0}, "misalignment": {}}) == 3.0
    assert mean_ap({"a": {"bbox": {"AP": 3.0}}, "b": {"bbox": {"AP": 5.0}}}) == 4.0


@pytest.mark.parametrize(
    "results",
    [
        {},
        {"count": 3.0},
        {"froc": {"recall": 3.0}},
        {"bbox": {"AP50": 3.0}},
        {"a": {"bbox": {"AP": 3.0}}, "b": {}},
    ],
)
def test_results_of_evaluators_of_ones_own_may_have_no_ap(results):
    assert math.isnan(mean_ap(results))
