"""Short trainings within the process of the tests."""

import json
import logging
import os
import re
import signal
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from detectron2.engine.defaults import default_setup
from detectron2.evaluation import DatasetEvaluator
from detectron2.layers import NaiveSyncBatchNorm
from detectron2.utils.events import EventStorage

from benchmarks.interruptions import files, same
from mutual_guidance import interrupt
from mutual_guidance.assignment import AnchorMatcher
from mutual_guidance.checkpoint import Checkpointer
from mutual_guidance.config import load_config
from mutual_guidance.data import register_datasets
from mutual_guidance.engine import Interrupted, Trainer
from mutual_guidance.engine.checks import check_values
from mutual_guidance.engine.device import resolve_device
from mutual_guidance.engine.predictor import files_of_run
from mutual_guidance.engine.setup import _kept, resolve_classes, resolve_schedule
from mutual_guidance.engine.step import load_batch
from mutual_guidance.engine.trainer import results_table
from mutual_guidance.errors import CheckpointError, ConfigError, NonFiniteLoss
from mutual_guidance.evaluation import PascalVOCEvaluator
from mutual_guidance.evaluation.detections import DetectionsWriter
from mutual_guidance.modeling.late import use_now
from mutual_guidance.modeling.meta_arch import GuidedRetinaNet
from tests.conftest import REPOSITORY, TINY, VOCWriter
from tests.runs import CONFIG, draw_four_images

ITERATIONS = 6


class Losses(HookBase):
    """Every loss as it was, not smoothed."""

    def __init__(self):
        self.values = []

    def after_step(self):
        use_now()  # of a GPU they arrive a step later
        names = sorted(n for n in self.trainer.storage.histories() if "loss" in n)
        latest = self.trainer.storage.latest()
        self.values.append([latest[name] for name in names])


class Crash(HookBase):
    def __init__(self, iteration):
        self.iteration = iteration

    def after_step(self):
        if self.trainer.iter == self.iteration:
            raise ZeroDivisionError


@pytest.fixture
def make_cfg(voc, voc_entry, tmp_path):
    draw_four_images(voc)
    register_datasets([voc_entry])

    def make(folder, *opts):
        name = f"('{voc_entry['name']}',)"
        cfg = load_config(
            CONFIG,
            [
                *TINY, "DATASETS.TRAIN", name, "DATASETS.TEST", name,
                "OUTPUT_DIR", str(tmp_path / folder), "INPUT.SSD_AUGMENTATION", True,
                "SOLVER.MAX_ITER", ITERATIONS, "SOLVER.IMS_PER_BATCH", 2,
                "SOLVER.CHECKPOINT_PERIOD", 100, "SOLVER.WARMUP_ITERS", 2,
                "SOLVER.AMP.ENABLED", False, "TEST.PRECISE_BN.ENABLED", False, *opts,
            ],
        )  # fmt: skip
        check_values(cfg)
        resolve_device(cfg)
        resolve_classes(cfg)
        resolve_schedule(cfg)
        default_setup(cfg, None)
        return cfg

    return make


def run(cfg, *hooks, resume=False, kind=Trainer):
    """Train; the losses of each iteration."""
    trainer, losses = kind(cfg), Losses()
    trainer.register_hooks([losses, *hooks])
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return losses.values


def weights(folder, name="model_final"):
    return torch.load(folder / f"{name}.pth", weights_only=True)


AT_THE_END = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 1)
PRECISE_BN = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 2,
              "TEST.EVAL_PERIOD", 2)  # fmt: skip


def crash(cfg, iteration):
    """Train until a crash after that iteration; the losses until then."""
    losses = Losses()
    with pytest.raises(ZeroDivisionError):
        run(cfg, losses, Crash(iteration))
    return losses.values


def test_a_resumed_run_is_the_uninterrupted_one(make_cfg, tmp_path):
    opts = ("SOLVER.EMA_DECAY", 0.9, "SOLVER.CHECKPOINT_PERIOD", 4, *PRECISE_BN)
    straight = run(make_cfg("whole", *opts))
    assert crash(make_cfg("torn", *opts), 4) == straight[:5]
    assert run(make_cfg("torn", *opts), resume=True) == straight[4:]  # after the checkpoint of 3
    whole, torn = weights(tmp_path / "whole"), weights(tmp_path / "torn")
    assert same(whole, torn) and {"model", "ema", "trainer"} <= whole.keys()


@pytest.mark.parametrize("lost", ["model_final", "model_ema_final"])
def test_a_run_that_fails_at_its_end_has_all_files_after_a_resume(
    make_cfg, tmp_path, monkeypatch, caplog, lost
):
    def full_disk(self, name, **kwargs):
        if name == lost:
            raise CheckpointError("disk full")
        save(self, name, **kwargs)

    save = Checkpointer.save
    opts = ("SOLVER.EMA_DECAY", 0.9, "SOLVER.CHECKPOINT_PERIOD", 3, "VIS_PERIOD", 3, *AT_THE_END)
    run(make_cfg("whole", *opts))
    with monkeypatch.context() as patched:
        patched.setattr(Checkpointer, "save", full_disk)
        with pytest.raises(CheckpointError):
            run(make_cfg("torn", *opts))
    assert "Traceback" not in caplog.text
    assert not (tmp_path / "torn" / "evaluation.json").exists()
    run(make_cfg("torn", *opts), resume=True)
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    assert same(weights(whole), weights(torn))
    assert same(weights(whole, "model_ema_final"), weights(torn, "model_ema_final"))
    assert files(whole) == files(torn)


def test_a_run_whose_last_file_is_lost_writes_it_anew(make_cfg, tmp_path):
    opts = ("SOLVER.CHECKPOINT_PERIOD", 3, "VIS_PERIOD", 3, *AT_THE_END)
    run(make_cfg("out", *opts))
    before = weights(tmp_path / "out")
    (tmp_path / "out" / "model_final.pth").unlink()
    run(make_cfg("out", *opts), resume=True)
    assert same(weights(tmp_path / "out"), before)


def odd_shapes(state):
    momenta = state["trainer"]["_trainer"]["optimizer"]["state"]
    momenta[0]["momentum_buffer"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (odd_shapes, r"with a momentum_buffer of \(3,\) for a parameter of"),
        (lambda state: state["trainer"].update(iteration=-5), "of iteration -5"),
        (lambda state: state["trainer"].update(iteration="x"), "not this trainer's"),
        (lambda state: state["trainer"].pop("_trainer"), "not this trainer's"),
        (lambda state: state.update(trainer=[]), "not this trainer's"),
        (lambda state: state["trainer"]["_trainer"]["optimizer"].update(param_groups=[]),
         "of other parameters"),
    ],
)  # fmt: skip
def test_a_state_that_does_not_fit_is_passed_over(make_cfg, tmp_path, caplog, damage, reason):
    cfg = make_cfg("out", "SOLVER.CHECKPOINT_PERIOD", 1, "SOLVER.MAX_ITER", 2)
    run(cfg)
    (tmp_path / "out" / "model_final.pth").unlink()
    path = tmp_path / "out" / "model_0000001.pth"
    state = torch.load(path, weights_only=True)
    damage(state)
    torch.save(state, path)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 1
    assert re.search(rf"Passed over \S+/model_0000001\.pth: .*{reason}", caplog.text)


def test_a_run_on_a_gpu_resumes_and_is_the_cpus(make_cfg, gpu, tmp_path):
    opts = (
        "SOLVER.EMA_DECAY", 0.9, "SOLVER.CHECKPOINT_PERIOD", 4, "VIS_PERIOD", 5,
        "TEST.MISALIGNMENT", True, *PRECISE_BN,
    )  # fmt: skip
    on_gpu = (*opts, "MODEL.DEVICE", "cuda:0")
    run(make_cfg("whole", *on_gpu))
    crash(make_cfg("torn", *on_gpu), 4)
    run(make_cfg("torn", *on_gpu), resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "torn"))
    run(make_cfg("cpu", *opts))
    last = {}
    for folder in ("whole", "cpu"):
        lines = map(json.loads, (tmp_path / folder / "metrics.json").read_text().splitlines())
        last[folder] = [line for line in lines if "total_loss" in line][-1]
        assert (tmp_path / folder / "evaluation_ema.json").exists()
    assert last["whole"].keys() == last["cpu"].keys() and "assignment/agreement" not in last["cpu"]
    for name in ("total_loss", "loss_cls", "num_positives/localisation"):
        assert last["whole"][name] == pytest.approx(last["cpu"][name], rel=0.05)


def test_a_loader_of_ones_own_is_trained_on(make_cfg):
    asked = []

    class Own(Trainer):
        @classmethod
        def build_train_loader(cls, cfg, seed=0, first_iteration=0):
            asked.append((cfg.DATALOADER.NUM_WORKERS, seed, first_iteration))
            return super().build_train_loader(cfg, seed, first_iteration)

    opts = ("SEED", 7, *PRECISE_BN, "SOLVER.CHECKPOINT_PERIOD", 3)
    with pytest.raises(ZeroDivisionError):
        run(make_cfg("out", *opts), Crash(3), kind=Own)
    before = asked.copy()
    run(make_cfg("out", *opts), resume=True, kind=Own)
    first, later = (0, 7, 0), (0, 7, 3)
    # Then PreciseBN's at each evaluation, which are the same.
    assert (before, asked[len(before) :]) == ([first] * 3, [first, later, first, first])


class Files(DatasetEvaluator):
    """Of one's own: which files it saw, and a result that is no AP."""

    def reset(self):
        self.seen = []

    def process(self, inputs, outputs):
        self.seen += [x["file_name"] for x in inputs]

    def evaluate(self):
        return {"count": np.float32(len(self.seen)), "worst": {"recall": float("-inf")}}


COUNTED = {"count": 4.0, "worst": {"recall": float("-inf")}}


@pytest.mark.parametrize(
    ("build", "results"),
    [(Files, COUNTED), (lambda: [Files()], COUNTED), (lambda: None, {})],
    ids=["one", "list", "none"],
)
def test_evaluators_of_ones_own(make_cfg, tmp_path, monkeypatch, build, results):
    class Own(Trainer):
        @classmethod
        def build_evaluator(cls, cfg, dataset_name):
            return build()

    signs = []
    monkeypatch.setattr("mutual_guidance.engine.watchdog.sign_of_life", lambda: signs.append(1))
    cfg = make_cfg("out", "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 1, "TEST.KEEP_BEST", True)
    assert Own(cfg).train() == results
    assert len(signs) > 2 * 4  # images of two evaluations
    assert not (tmp_path / "out" / "model_best.pth").exists()
    if results:
        (kept,) = json.loads((tmp_path / "out" / "evaluation.json").read_text()).values()
        assert kept == {"count": 4.0, "worst": {"recall": None}}


def test_a_signal_ends_an_evaluation_by_an_evaluator_of_ones_own(make_cfg):
    class Signalled(Files):
        def process(self, inputs, outputs):
            send(signal.SIGTERM)

        def evaluate(self):
            raise AssertionError("of a part of the images")

    cfg = make_cfg("out")
    with interrupt.note_signals(), pytest.raises(Interrupted):
        Trainer.test(cfg, Trainer.build_model(cfg), Signalled())


def test_a_data_set_is_that_of_the_config_whatever_another_has_of_its_name(
    make_cfg, voc, voc_entry, tmp_path
):
    cfg = make_cfg("out", "DATASETS.REGISTER", [voc_entry], "SOLVER.MAX_ITER", 1, "VIS_PERIOD", 1)
    other = VOCWriter(tmp_path / "other")
    other.add("other", [("red", (3, 5, 24, 40))])
    other = [{**voc_entry, "root": str(other.root)}]

    register_datasets(other)
    trainer = Trainer(cfg)
    images = next(iter(trainer._trainer.data_loader))
    assert all(str(voc.root) in image["file_name"] for image in images)
    register_datasets(other)
    trainer.train()
    assert (tmp_path / "out" / "visualization" / "assignments" / "a").is_dir()
    register_datasets(other)
    files = Files()
    Trainer.test(cfg, trainer.model, files)
    assert len(files.seen) == 4 and all(str(voc.root) in file for file in files.seen)


def test_a_run_without_setup_leaves_its_config(make_cfg, tmp_path):
    cfg = make_cfg("out", "SOLVER.MAX_ITER", 1)
    (tmp_path / "out" / "config.yaml").unlink()
    results = Trainer(cfg).train()
    assert results["bbox"].keys() >= {"AP", "AP50"}
    config, weights = files_of_run(tmp_path / "out")
    assert Path(config).read_text() == cfg.dump() and weights.endswith("model_final.pth")
    Path(config).write_text("of an earlier run in the folder")
    Trainer(cfg).train()
    assert Path(config).read_text() == cfg.dump()


def test_a_config_that_is_not_ready_is_refused():
    with pytest.raises(ConfigError, match=r"CLASSES is empty, .* engine\.setup .* engine\.prepare"):
        Trainer(load_config(CONFIG))


def test_the_pages_lines_of_python_train(voc, tmp_path, monkeypatch):
    draw_four_images(voc)
    page = (REPOSITORY / "docs" / "train.md").read_text()
    section = page[page.index("## From Python") : page.index("## What a run leaves")]
    train, register = re.findall(r"```python\n(.*?)```", section, re.S)
    train = train.replace("configs/Shapes/retinanet_R_18.yaml", CONFIG)
    train = train.replace('"output/python/', f'"{tmp_path}/').replace("opts=[", "opts=[*opts, ")
    name = ("mine",)
    opts = [
        *TINY, "DATASETS.TRAIN", name, "DATASETS.TEST", name, "SOLVER.MAX_ITER", 2,
        "SOLVER.IMS_PER_BATCH", 1, "SOLVER.AMP.ENABLED", False,
    ]  # fmt: skip
    monkeypatch.chdir(voc.root / "JPEGImages")
    module = import_module("mutual_guidance.engine.setup")  # which has a function of its name
    monkeypatch.setattr(module, "setup_logs", lambda folder: None)
    exec(register, {})
    try:
        exec(train, {"opts": opts})
    finally:
        DatasetCatalog.remove("mine"), MetadataCatalog.remove("mine")
    for strategy in ("static", "mutual_guidance"):
        (results,) = json.loads((tmp_path / strategy / "evaluation.json").read_text()).values()
        assert "AP" in results["bbox"]
        assert load_config(str(tmp_path / strategy / "config.yaml")).DATASETS.CLASSES == ["red"]


def test_other_trainers_log_their_tracebacks(make_cfg):
    loop, seen = logging.getLogger("detectron2.engine.train_loop"), []

    class Look(HookBase):
        def after_step(self):
            seen.extend(loop.filters)

    run(make_cfg("out", "SOLVER.MAX_ITER", 1), Look())
    assert len(seen) == 1 and not loop.filters


def test_a_prolonged_run_resumes_where_it_was(make_cfg, tmp_path):
    run(make_cfg("long", "SOLVER.MAX_ITER", 2))
    more = ("SOLVER.MAX_ITER", 9, "SOLVER.CHECKPOINT_PERIOD", 4)
    with pytest.raises(ZeroDivisionError):
        run(make_cfg("long", *more), Crash(4), resume=True)
    trainer = Trainer(make_cfg("long", *more))
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 4
    # What was the end is now one of the others.
    names = sorted(path.name for path in (tmp_path / "long").glob("model_*.pth"))
    assert names == ["model_0000001.pth", "model_0000003.pth"]


def test_an_evaluation_that_was_interrupted_is_made_up(make_cfg, tmp_path):
    cfg = make_cfg("out", "TEST.EVAL_PERIOD", 4, "SOLVER.CHECKPOINT_PERIOD", 4)
    trainer = Trainer(cfg)
    trainer.register_hooks([Crash(3)])
    trainer._hooks.insert(0, trainer._hooks.pop())  # before the evaluation, and the checkpoint
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    trainer.checkpointer.save("model_0000003")
    run(cfg, resume=True)
    lines = map(json.loads, (tmp_path / "out" / "metrics.json").read_text().splitlines())
    assert 3 in [line["iteration"] for line in lines if "bbox/AP" in line]


def test_a_shorter_training_does_not_go_on(make_cfg):
    run(make_cfg("out"))
    with pytest.raises(ConfigError, match=r"training of 6 iterations, more than the 4 that SOLVER"):
        Trainer(make_cfg("out", "SOLVER.MAX_ITER", 4)).resume_or_load(resume=True)


def test_the_config_is_of_what_was_loaded(make_cfg, tmp_path):
    run(make_cfg("out"))
    path = tmp_path / "out" / "config.yaml"
    path.write_text("of the run")
    with _kept(str(path)):
        wider = make_cfg("out", "MODEL.PYRAMID.OUT_CHANNELS", 48)
    with pytest.raises(CheckpointError, match="go on with the settings of the run"):
        Trainer(wider).resume_or_load(resume=True)
    assert path.read_text() == "of the run"
    with _kept(str(path)):
        longer = make_cfg("out", "SOLVER.MAX_ITER", 8)
    Trainer(longer).resume_or_load(resume=True)
    assert "MAX_ITER: 8" in path.read_text()


def test_a_stock_retinanet_keeps_the_mean_that_divides_its_losses(make_cfg):
    opts = ("MODEL.META_ARCHITECTURE", "RetinaNet", "SOLVER.CHECKPOINT_PERIOD", 4,
            "MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "smooth_l1")  # fmt: skip
    whole = run(make_cfg("whole", *opts))
    crash(make_cfg("torn", *opts), 4)
    assert run(make_cfg("torn", *opts), resume=True) == whole[4:]


def test_names_of_classes_are_no_numbers():
    table = results_table({"AP": 50.0, "AP-0.05": 40.0, "AP-0.10": 60.0})
    assert "| 0.05 " in table and "| 0.10 " in table


def test_without_a_test_set_there_are_no_results(make_cfg, tmp_path):
    run(make_cfg("out", "DATASETS.TEST", ()))
    assert (tmp_path / "out" / "model_final.pth").exists()
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_mixed_precision_leaves_the_average_alone(make_cfg):
    amp = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16")
    trainer = Trainer(make_cfg("amp", *amp, "SOLVER.EMA_DECAY", 0.5))
    average, used = trainer.ema.module.eval(), []
    average.backbone.register_forward_hook(lambda *_: used.append(True))
    with torch.no_grad():
        average([{"image": torch.zeros(3, 64, 64), "height": 64, "width": 64}])
    assert used


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision_on_a_gpu(make_cfg, precision):
    amp = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", precision)
    cfg = make_cfg("gpu", *amp, "MODEL.DEVICE", "cuda", "MODEL.CHANNELS_LAST", True)
    assert torch.tensor(run(cfg)).isfinite().all()


@pytest.mark.gpu
def test_a_resumed_run_on_a_gpu_is_the_uninterrupted_one(make_cfg):
    opts = ("MODEL.DEVICE", "cuda", "SOLVER.EMA_DECAY", 0.9, "SOLVER.CHECKPOINT_PERIOD", 4)
    whole = run(make_cfg("whole", *opts))
    begun = crash(make_cfg("torn", *opts), 4)
    resumed = run(make_cfg("torn", *opts), resume=True)
    # Sums of a GPU are rounded in any order.
    torch.testing.assert_close(
        torch.tensor(begun[:4] + resumed), torch.tensor(whole), rtol=1e-3, atol=1e-4
    )


def test_a_random_seed_is_kept_with_the_run(make_cfg):
    cfg = make_cfg("torn", "SEED", -1)
    trainer = Trainer(cfg)
    trainer.checkpointer.save("model_0000001")
    other = Trainer(make_cfg("torn", "SEED", -1))
    assert other.data_seed != trainer.data_seed
    other.resume_or_load(resume=True)
    assert other.data_seed == trainer.data_seed


def test_both_weights_are_evaluated(make_cfg, tmp_path, monkeypatch):
    cfg = make_cfg("ema", "SOLVER.EMA_DECAY", 0.5, "TEST.MISALIGNMENT", True)
    written, write = [], DetectionsWriter.evaluate
    monkeypatch.setattr(DetectionsWriter, "evaluate", lambda self: written.append(1) or write(self))
    run(cfg)
    final = weights(tmp_path / "ema")
    average = weights(tmp_path / "ema", "model_ema_final")["model"]
    assert not same(final["model"], average)
    assert same(average, {n[7:]: v for n, v in final["ema"].items() if n.startswith("module.")})
    for file in ("evaluation.json", "evaluation_ema.json"):
        (metrics,) = json.loads((tmp_path / "ema" / file).read_text()).values()
        assert "AP75" in metrics["bbox"]
    lines = (tmp_path / "ema" / "metrics.json").read_text().splitlines()
    last = json.loads(lines[-1])
    assert {"bbox/AP", "ema/bbox/AP", "misalignment/suppressed"} <= last.keys()
    # These files are those of the weights.
    assert "ema/misalignment/suppressed" not in last
    assert len(written) == sum("bbox/AP" in json.loads(line) for line in lines)


class Average(HookBase):
    """A moving average by its definition, of the one parameter."""

    def __init__(self, decay):
        self.decay = decay
        self.value = None

    def after_step(self):
        now = next(self.trainer.model.parameters()).detach().clone()
        first = self.value is None
        self.value = now if first else self.decay * self.value + (1 - self.decay) * now


def test_moving_average_by_its_definition(make_cfg, tmp_path):
    average = Average(0.5)
    run(make_cfg("ema", "SOLVER.EMA_DECAY", 0.5), average)
    saved = next(iter(weights(tmp_path / "ema", "model_ema_final")["model"].values()))
    torch.testing.assert_close(saved, average.value)


@pytest.mark.parametrize("period", ["TEST.EVAL_PERIOD", "VIS_PERIOD"])
def test_losses_are_looked_at_before_an_evaluation(make_cfg, monkeypatch, period):
    trainer, looked = Trainer(make_cfg("out", period, 4)), []
    monkeypatch.setattr(
        "mutual_guidance.engine.trainer.use_now", lambda: looked.append(trainer.iter)
    )
    trainer.train()
    assert looked == [0, 3, 5]


def test_a_loss_that_is_not_finite_stops_the_run(make_cfg, tmp_path):
    class Poison(HookBase):
        def before_step(self):
            if self.trainer.iter == 3:
                self.trainer.model.head.bbox_pred[0].bias.data.fill_(float("inf"))

    cfg = make_cfg("bad")
    with pytest.raises(NonFiniteLoss, match=r"in iteration 3 .*loss_box_reg.* on .*\.jpg"):
        run(cfg, Poison())
    (path,) = (tmp_path / "bad").glob("nonfinite_0000003_rank0.pth")
    # The batch and the weights show the same in a new process.
    model = Trainer.build_model(cfg)
    Checkpointer(model).load(str(path))
    with torch.no_grad(), EventStorage():
        losses = model(load_batch(str(path)))
    assert not torch.stack(list(losses.values())).isfinite().all()


def send(number):
    """To this process, until it has been noted: another thread takes it, when it has a core."""
    os.kill(os.getpid(), number)
    limit = time.monotonic() + 60
    while interrupt._received is None and time.monotonic() < limit:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("work", "number", "code"),
    [
        ((GuidedRetinaNet, "forward_inference"), signal.SIGTERM, 143),
        ((GuidedRetinaNet, "forward_inference"), signal.SIGHUP, 129),
        ((PascalVOCEvaluator, "_found"), signal.SIGTERM, 143),
    ],
    ids=["inference-15", "inference-1", "metrics-15"],
)
def test_a_signal_ends_an_evaluation(make_cfg, tmp_path, monkeypatch, work, number, code):
    def signalled(*args):
        send(number)
        return call(*args)

    call = getattr(*work)
    monkeypatch.setattr(*work, signalled)
    with pytest.raises(Interrupted) as stop:
        run(make_cfg("stopped", "TEST.EVAL_PERIOD", 2))
    assert stop.value.code == code
    assert weights(tmp_path / "stopped", "model_0000001")["trainer"]["iteration"] == 1
    assert not (tmp_path / "stopped" / "evaluation.json").exists()


@pytest.mark.parametrize(
    ("period", "step", "iteration"),
    [(2, 3, 1), pytest.param(2, 13, 5, marks=pytest.mark.slow), (10, 7, 5)],
    ids=["first", "last", "before_any_evaluation"],
)
def test_a_signal_ends_precise_bn_as_if_it_had_not_begun(
    make_cfg, tmp_path, monkeypatch, period, step, iteration
):
    opts = ("TEST.PRECISE_BN.ENABLED", True, "TEST.PRECISE_BN.NUM_ITER", 3, "TEST.EVAL_PERIOD",
            period, "TEST.KEEP_BEST", True, "SOLVER.EMA_DECAY", 0.9)  # fmt: skip
    run(make_cfg("whole", *opts))
    steps = []

    def signalled(self, *args):
        if self.training:
            steps.append({n: b.clone() for n, b in self.named_buffers() if "running" in n})
            if len(steps) == step:
                send(signal.SIGTERM)
        return call(self, *args)

    call = GuidedRetinaNet.forward
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(GuidedRetinaNet, "forward", signalled)
        run(make_cfg("stopped", *opts))
    assert len(steps) == step  # none after the signal
    state = weights(tmp_path / "stopped", f"model_{iteration:07d}")
    assert state["trainer"]["iteration"] == iteration
    assert same({n: b for n, b in state["model"].items() if "running" in n}, steps[-1])
    run(make_cfg("stopped", *opts), resume=True)
    for name in ("model_final", "model_ema_final", "model_best"):
        assert same(weights(tmp_path / "whole", name), weights(tmp_path / "stopped", name))
    for name in ("evaluation.json", "evaluation_ema.json"):
        whole, stopped = ((tmp_path / f / name).read_text() for f in ("whole", "stopped"))
        assert whole == stopped


@pytest.mark.parametrize(
    "opts",
    [
        ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16"),
        ("MODEL.CHANNELS_LAST", True),
    ],
)
def test_variants_train_as_the_plain_run_does(make_cfg, opts, monkeypatch):
    seen = set()
    match = AnchorMatcher.match

    def watched(self, anchors, truth, pred_boxes, pred_logits):
        seen.add((pred_boxes.dtype, pred_logits.dtype))
        return match(self, anchors, truth, pred_boxes, pred_logits)

    # After two steps the labels may differ, and the runs part.
    two = ("SOLVER.MAX_ITER", 2)
    plain = run(make_cfg("plain", *two))
    monkeypatch.setattr(AnchorMatcher, "match", watched)
    variant = run(make_cfg("variant", *two, *opts))
    torch.testing.assert_close(variant, plain, rtol=0.05, atol=0.02)
    half = torch.bfloat16 if "SOLVER.AMP.ENABLED" in opts else torch.float32
    assert seen == {(torch.float32, half)}


@pytest.mark.parametrize("max_iter", [1, 2, 50, 51])
def test_a_training_shorter_than_its_warm_up(max_iter):
    cfg = load_config(CONFIG, ["SOLVER.MAX_ITER", max_iter, "SOLVER.RESCALE_INTERVAL", True])
    assert cfg.SOLVER.WARMUP_ITERS == 50
    resolve_schedule(cfg)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = Trainer.build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(max_iter):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert max(rates) == rates[-1] == pytest.approx(cfg.SOLVER.BASE_LR)


def test_synchronised_batch_norm_keeps_its_statistics_in_float32(make_cfg, tmp_path, monkeypatch):
    cfg = make_cfg(tmp_path, "MODEL.PYRAMID.NORM", "naiveSyncBN")
    layers = [m for m in Trainer.build_model(cfg).modules() if isinstance(m, NaiveSyncBatchNorm)]
    for module in ("comm", "dist"):
        monkeypatch.setattr(f"detectron2.layers.batch_norm.{module}.get_world_size", lambda: 2)
    monkeypatch.setattr("detectron2.layers.batch_norm.differentiable_all_reduce", lambda x: 2 * x)
    shape = (4, layers[0].num_features, 16, 16)
    outputs = layers[0].train()(torch.randn(shape).add(30).bfloat16())
    # The mean is thirty deviations: in bfloat16 the difference of the squares' means has no digit.
    assert outputs.float().std().item() == pytest.approx(1, abs=0.1)
