"""Training steps on a pretended GPU, beside the same ones on the CPU."""

import copy
import io
import itertools

import pytest
import torch
from detectron2.utils.events import EventStorage

from mutual_guidance.assignment import STRATEGIES
from mutual_guidance.checkpoint import Checkpointer
from mutual_guidance.config import load_config
from mutual_guidance.engine import Trainer
from mutual_guidance.engine.ema import build_ema
from mutual_guidance.engine.step import build_step, load_batch
from mutual_guidance.errors import NonFiniteLoss
from mutual_guidance.modeling.late import use_now
from mutual_guidance.modeling.meta_arch.curves import HISTOGRAM_PERIOD
from tests.conftest import (
    REPOSITORY,
    TINY,
    count_waits,
    make_instances,
    tiny_config,
    tiny_model,
)

SIDE = 64
DETECTORS = [
    "Shapes/retinanet_R_18",
    "PascalVOC-Detection/fssd_R_18",
    "PascalVOC-Detection/fcos_R_18",
    "PascalVOC-Detection/retinanet_R_50_FPN",
    *(
        pytest.param(f"{path.parent.name}/{path.stem}", marks=pytest.mark.slow)
        for path in sorted(REPOSITORY.glob("configs/*/*.yaml"))
    ),
]


def batch_of(*objects):
    """Images with so many random objects each."""
    generator = torch.Generator().manual_seed(0)
    images = []
    for i, count in enumerate(objects):
        corners = torch.rand(count, 2, generator=generator) * 32
        sizes = torch.rand(count, 2, generator=generator) * 24 + 6
        instances = make_instances(
            torch.cat((corners, corners + sizes), dim=1).tolist(), [i] * count, SIDE
        )
        image = torch.randint(256, (3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
        images.append({"file_name": f"{i}.jpg", "image": image, "instances": instances})
    return images


def config(name, *opts):
    path = REPOSITORY / "configs" / f"{name}.yaml"
    # The detectors with frozen statistics diverge from random weights at their own rate.
    return load_config(
        str(path),
        [
            "MODEL.DEVICE",
            "cpu",
            "MODEL.WEIGHTS",
            "",
            "SOLVER.BASE_LR",
            1e-4,
            "SOLVER.AMP.ENABLED",
            False,
            *opts,
        ],  # fmt: skip
    )


def make_step(cfg, batches):
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    return build_step(cfg, model, itertools.cycle(batches), Trainer.build_optimizer(cfg, model))


def losses_of(storage):
    return {n: [v for v, _ in h.values()] for n, h in storage.histories().items() if "loss" in n}


def state(model):
    return [x.cpu() for x in model.state_dict().values()]


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_step_waits_for_the_matcher_alone(detector, gpu):
    cfg = config(detector, "MODEL.DEVICE", "cuda:0", "SOLVER.BASE_LR", 0.0)
    step = make_step(cfg, [batch_of(3, 0), batch_of(1, 2, 5, 1)])
    ema = build_ema(step.model, 0.9)
    matcher = step.model.matcher
    # Labels know anchors from points and nothing else of a detector.
    all_strategies = detector in (DETECTORS[0], DETECTORS[2])
    strategies = STRATEGIES if all_strategies else ("static", "mutual_guidance")
    with EventStorage() as storage:
        for strategy, step.iter in itertools.product(strategies, (0, HISTOGRAM_PERIOD - 2)):
            storage.iter = step.iter
            step.model.matcher = matcher.with_strategy(strategy)
            gpu.reset()
            step.run_step()
            ema.update_parameters(step.model)
            # Curves label by the static strategy besides.
            assert gpu.waits == ["tolist"] * (2 if step.iter else 1), (strategy, step.iter)
        use_now()
    assert {"total_loss", "num_positives/localisation"} <= storage.latest().keys()
    assert any(name.startswith("assignment/") for name in storage.latest())


def train(cfg, batches, num_steps=1):
    """Losses of each step, and the step, with its model's gradients."""
    step = make_step(cfg, batches)
    with EventStorage() as storage:
        for i in range(num_steps):
            step.iter = storage.iter = i
            step.run_step()
        use_now()
    return losses_of(storage), step


@pytest.mark.parametrize("detector", DETECTORS[1:3])
def test_losses_and_gradients_are_the_cpus_bit_for_bit(detector, gpu):
    losses, expected = train(config(detector), [batch_of(3, 0, 2)])
    gpu_losses, got = train(config(detector, "MODEL.DEVICE", "cuda:0"), [batch_of(3, 0, 2)])
    assert gpu_losses == losses and losses["total_loss"][0] > 0
    for a, b in zip(got.model.parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(a.grad.cpu(), b.grad)
        torch.testing.assert_close(a.detach().cpu(), b.detach())  # the fused update rounds else


@pytest.mark.parametrize("detector", ["fssd_R_18", "fcos_R_18"])
def test_detections_are_the_cpus_bit_for_bit(detector, gpu):
    model = tiny_model(tiny_config(detector))
    images = [{**image, "height": 50, "width": 90} for image in batch_of(0, 0)]
    with torch.no_grad():
        expected = model(images)
        got = model.to("cuda:0")(images)
    for a, b in zip(got, expected, strict=True):
        a = a["instances"].to("cpu")
        b = b["instances"]
        assert len(b) > 5 and torch.equal(a.scores, b.scores)
        assert torch.equal(a.pred_boxes.tensor, b.pred_boxes.tensor)


@pytest.fixture
def real_gpu():
    """``cuda:0`` where float32 keeps its bits."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield "cuda:0"


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [None, "float16", "bfloat16"])
@pytest.mark.parametrize("detector", DETECTORS)
def test_a_step_waits_once_for_a_real_gpu(detector, precision):
    opts = ["MODEL.DEVICE", "cuda:0", "SOLVER.BASE_LR", 0.0]
    if precision:
        opts += ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", precision]
    step = make_step(config(detector, *opts), [batch_of(3, 0), batch_of(1, 2, 5, 1)])
    ema = build_ema(step.model, 0.9)

    def iterate():
        step.run_step()
        ema.update_parameters(step.model)

    with EventStorage() as storage:
        for step.iter, waits in ((0, None), (1, None), (2, 1), (HISTOGRAM_PERIOD - 2, 2)):
            storage.iter = step.iter
            assert count_waits(iterate) == waits or waits is None
        use_now()


@pytest.mark.gpu
@pytest.mark.parametrize("detector", DETECTORS[:3])
def test_losses_and_gradients_of_a_real_gpu_are_near_the_cpus(detector, real_gpu):
    losses, expected = train(config(detector), [batch_of(3, 0, 2)])
    gpu_losses, got = train(config(detector, "MODEL.DEVICE", real_gpu), [batch_of(3, 0, 2)])
    for name, values in losses.items():
        assert gpu_losses[name] == pytest.approx(values, rel=1e-4)
    for a, b in zip(got.model.parameters(), expected.model.parameters(), strict=True):
        # An activation about 0 that falls on the other side takes its part of the gradient away.
        assert (a.grad.cpu() - b.grad).norm() <= 1e-2 * b.grad.norm() + 1e-6


@pytest.mark.gpu
@pytest.mark.parametrize("detector", ["retinanet_R_18", "fssd_R_18", "fcos_R_18"])
def test_detections_of_a_real_gpu_are_near_the_cpus(detector, real_gpu):
    model = tiny_model(tiny_config(detector))
    images = [{**image, "height": 50, "width": 90} for image in batch_of(0, 0)]
    with torch.no_grad():
        expected = model(images)
        got = model.to(real_gpu)(images)
    for a, b in zip(got, expected, strict=True):
        a, b = a["instances"].to("cpu")[:20], b["instances"][:20]  # in whose order none is close
        assert len(b) > 5
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(a.pred_boxes.tensor, b.pred_boxes.tensor, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_mixed_precision(precision, gpu):
    opts = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", precision, "MODEL.DEVICE", "cuda:0")
    clip = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1e-3)
    plain, batches = (*TINY, *clip), [batch_of(3, 0, 2)]
    wanted, _ = train(config("Shapes/retinanet_R_18", *plain), batches, 2)
    gpu.reset()
    losses, step = train(config("Shapes/retinanet_R_18", *plain, *opts), batches, 2)
    assert gpu.waits.count("tolist") == 2 and "_local_scalar_dense" not in gpu.waits
    for name, values in wanted.items():
        assert losses[name] == pytest.approx(values, rel=0.02)
    # Clipped after the scale of the loss is taken out again.
    assert max(p.grad.abs().max().item() for p in step.model.parameters()) <= 1.0001e-3


def pickled(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_in_bfloat16_of_the_cpu_computes_with_its_own_weights(copied):
    opts = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16")
    model = make_step(config("Shapes/retinanet_R_18", *TINY, *opts), []).model
    copy_of_it = copied(model)

    def losses(detector):
        with EventStorage(), torch.no_grad():
            return detector(batch_of(2))

    assert losses(copy_of_it) == losses(model)
    for parameter in model.head.cls_score.parameters():
        parameter.data.add_(1)
    assert losses(copy_of_it)["loss_cls"] != losses(model)["loss_cls"]


def test_ctrl_c_leaves_no_autocast_behind(monkeypatch):
    def interrupted(*args):
        assert torch.is_autocast_enabled("cpu")
        raise KeyboardInterrupt

    opts = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16")
    model = make_step(config("Shapes/retinanet_R_18", *TINY, *opts), []).model
    monkeypatch.setattr(type(model), "preprocess_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model(batch_of(2))
    assert not torch.is_autocast_enabled("cpu")


def test_momentum_fits_the_weights_whatever_the_run_was_on():
    cfg = tiny_config("retinanet_R_18", "SOLVER.AMP.ENABLED", False, "SOLVER.BASE_LR", 1e-4)
    step = make_step(cfg, [batch_of(2), batch_of(1)])
    with EventStorage():
        step.iter = 0
        step.run_step()
    weights, saved = copy.deepcopy(step.model.state_dict()), copy.deepcopy(step.state_dict())
    on_a_gpu = copy.deepcopy(saved)  # in channels-last
    for of_weight in on_a_gpu["optimizer"]["state"].values():
        buffer = of_weight["momentum_buffer"]
        if buffer.dim() == 4:
            of_weight["momentum_buffer"] = buffer.to(memory_format=torch.channels_last)
    for group in on_a_gpu["optimizer"]["param_groups"]:
        group.update(foreach=False, fused=True)
    ends = []
    for kept in (saved, on_a_gpu):
        resumed = make_step(cfg, [batch_of(1)])
        resumed.model.load_state_dict(weights)
        resumed.load_state_dict(kept)
        with EventStorage(1):
            resumed.iter = 1
            resumed.run_step()
        ends.append(state(resumed.model))
    assert all(map(torch.equal, *ends))


def test_a_run_in_bfloat16_of_the_cpu_goes_on_on_a_gpu(any_gpu):
    opts = ("SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16")
    cfg = config("Shapes/retinanet_R_18", *opts)
    saved = make_step(cfg, [batch_of(2)]).state_dict()
    step = make_step(config("Shapes/retinanet_R_18", *opts, "MODEL.DEVICE", "cuda:0"), [])
    assert step.state_dict().keys() <= saved.keys()
    step.load_state_dict(saved)
    scaled = (*opts[:3], "float16", "MODEL.DEVICE", "cuda:0")
    assert "grad_scaler" in make_step(config("Shapes/retinanet_R_18", *scaled), []).state_dict()


@pytest.mark.parametrize("precision", [None, "float16"])
def test_a_loss_that_is_not_finite_is_named_a_step_later(precision, any_gpu, tmp_path):
    opts = [*TINY, "MODEL.DEVICE", "cuda:0", "OUTPUT_DIR", str(tmp_path)]
    if precision:
        opts += ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", precision]
    cfg = config("Shapes/retinanet_R_18", *opts)
    good, bad, next_one = batch_of(3, 0), batch_of(2), batch_of(1)
    bad[0]["file_name"] = "bad.jpg"
    bad[0]["image"] = torch.full((3, SIDE, SIDE), float("nan"))
    step = make_step(cfg, [good, bad, next_one])
    with EventStorage() as storage:
        for step.iter in range(2):
            storage.iter = step.iter
            step.run_step()
        weights = state(step.model.head)
        step.iter = storage.iter = 2
        with pytest.raises(NonFiniteLoss, match=r"in iteration 1 \(loss_cls nan.* on bad.jpg; "):
            step.run_step()
    assert all(x.isfinite().all() for x in weights)  # the device left the update out
    # The batch and the weights that it met show the same again.
    path = str(tmp_path / "nonfinite_0000001_rank0.pth")
    model = Trainer.build_model(cfg)
    Checkpointer(model).load(path)
    assert all(map(torch.equal, state(model.head), weights))
    with EventStorage(), torch.no_grad():
        assert not sum(model(load_batch(path)).values()).isfinite()


def test_of_another_optimiser_the_loss_is_read_before_the_update(any_gpu, tmp_path):
    cfg = config(
        "Shapes/retinanet_R_18", *TINY, "MODEL.DEVICE", "cuda:0", "OUTPUT_DIR", str(tmp_path)
    )
    bad = batch_of(2)
    bad[0]["image"] = torch.full((3, SIDE, SIDE), float("nan"))
    torch.manual_seed(0)
    model = Trainer.build_model(cfg)
    step = build_step(cfg, model, iter([batch_of(3), bad]), torch.optim.Adagrad(model.parameters()))
    with EventStorage() as storage:
        before = state(model.head)
        step.iter = storage.iter = 0
        step.run_step()
        weights = state(model.head)
        assert not all(map(torch.equal, weights, before))
        step.iter = storage.iter = 1
        with pytest.raises(NonFiniteLoss, match="in iteration 1 "):
            step.run_step()
    assert all(map(torch.equal, state(model.head), weights))


def test_an_update_is_left_out_where_another_process_has_the_loss(any_gpu, monkeypatch):
    cfg = config("Shapes/retinanet_R_18", *TINY, "MODEL.DEVICE", "cuda:0")
    step = make_step(cfg, [batch_of(3)])
    before = state(step.model.head)
    asked = []

    def all_reduce(values, operation=torch.distributed.ReduceOp.SUM):
        if operation == torch.distributed.ReduceOp.MAX:
            asked.append(values.item())
            values.fill_(1.0)  # of the other process

    monkeypatch.setattr("mutual_guidance.engine.step.comm.get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    with EventStorage() as storage:
        step.iter = storage.iter = 0
        step.run_step()
    assert asked == [0.0]
    assert all(map(torch.equal, state(step.model.head), before))
