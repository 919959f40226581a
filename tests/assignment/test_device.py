"""What a call costs the device: waits of the host, and memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mutual_guidance.assignment import STRATEGIES, AnchorMatcher, GroundTruths, PointMatcher
from tests.pretend_gpu import DEVICE, pretend_gpu

from .scenes import random_boxes
from .test_matcher import EXTENT, fcos_points, grid_anchors

# Operators for which the host waits, since it needs a value or a size from the device.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal"}


class Watch(TorchDispatchMode):
    """Counts operators that would wait on a GPU, and the largest tensor made."""

    def __init__(self):
        super().__init__()
        self.waits = []
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING or (name.startswith("index") and self._by_mask(args)):
            self.waits.append(name)
        result = func(*args, **(kwargs or {}))
        if torch.is_tensor(result):
            self.largest = max(self.largest, result.numel() * result.element_size())
        return result

    @staticmethod
    def _by_mask(args):
        indices = args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ()
        return any(torch.is_tensor(i) and i.dtype == torch.bool for i in indices)


@pytest.fixture
def transfers(monkeypatch):
    """Calls of Tensor.tolist, which wait without an operator of their own."""
    calls = []
    tolist = torch.Tensor.tolist

    def counted(tensor):
        calls.append(tensor.shape)
        return tolist(tensor)

    monkeypatch.setattr(torch.Tensor, "tolist", counted)
    return calls


def crowded_batch(num_candidates, num_images=4, num_classes=3):
    generator = torch.Generator().manual_seed(0)
    gt_boxes = [random_boxes(generator, 9, EXTENT, 3, 20) for _ in range(num_images)]
    gt_classes = [torch.randint(num_classes, (9,), generator=generator) for _ in gt_boxes]
    pred = random_boxes(generator, num_images * num_candidates, EXTENT, 1, EXTENT)
    logits = torch.randn(num_images, num_candidates, num_classes, generator=generator)
    return gt_boxes, gt_classes, pred.view(num_images, num_candidates, 4), logits


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("memory_budget", [2**30, 2**16])  # in one chunk, in many
def test_the_host_waits_once_a_call(strategy, memory_budget, transfers):
    batch = crowded_batch(64)
    with Watch() as watch:
        AnchorMatcher(strategy, memory_budget=memory_budget)(grid_anchors(), *batch)
    assert watch.waits == [] and len(transfers) == 1


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_host_waits_once_a_call_for_points(strategy, transfers):
    points, strides, levels = fcos_points()
    batch = crowded_batch(len(points))
    with Watch() as watch:
        matcher = PointMatcher(strategy)
        sizes = [64, 16, 4]  # of the levels; the host would wait to count them
        candidates = matcher.candidates(points, strides, levels, sizes)
        matcher.match(candidates, GroundTruths.cat(*batch[:2]), *batch[2:])
    assert watch.waits == [] and len(transfers) == 1


def test_logits_may_have_any_layout():
    boxes, classes, pred_boxes, logits = crowded_batch(64)
    matcher = AnchorMatcher()
    expected = matcher(grid_anchors(), boxes, classes, pred_boxes, logits)
    transposed = logits.transpose(1, 2).contiguous().transpose(1, 2)
    assert not transposed.is_contiguous()
    labels = matcher(grid_anchors(), boxes, classes, pred_boxes, transposed)
    assert all(map(torch.equal, labels, expected))


def test_no_tensor_is_padded_to_the_most_crowded_image():
    # 1 of 64 images has 256 objects, the others 1: padding would make 64 x 256 x 64 cells.
    generator = torch.Generator().manual_seed(0)
    sizes = [256] + [1] * 63
    gt_boxes = [random_boxes(generator, m, EXTENT, 3, 8) for m in sizes]
    gt_classes = [torch.zeros(m, dtype=torch.int64) for m in sizes]
    pred = grid_anchors().expand(64, 64, 4)
    with Watch() as watch:
        AnchorMatcher("localize_to_classify", num_classes=1)(
            grid_anchors(), gt_boxes, gt_classes, pred
        )
    rows = sum(sizes) * 64 * 4 * 4  # bytes of four float32 coordinates a cell
    assert watch.largest <= rows < 64 * 256 * 64 * 4


@pytest.mark.parametrize("kind", ["anchors", "points"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_labels_and_targets_on_a_pretended_gpu_are_the_cpus(strategy, kind):
    anchors = kind == "anchors"
    matcher = (AnchorMatcher if anchors else PointMatcher)(strategy)
    geometry = (grid_anchors(),) if anchors else fcos_points()
    sizes = [30, 20, 14] if anchors else [64, 16, 4]
    boxes, classes, *predictions = crowded_batch(len(geometry[0]))

    def on(device):
        truth = GroundTruths.cat([b.to(device) for b in boxes], [c.to(device) for c in classes])
        candidates = matcher.candidates(*(x.to(device) for x in geometry), sizes)
        predicted = [x.to(device) for x in predictions]
        yield
        labels = matcher.match(candidates, truth, *predicted)
        targets = matcher.score_targets(candidates, truth, *predicted, labels)
        yield [*labels, targets]

    *_, expected = on("cpu")
    with pretend_gpu() as gpu:
        steps = on(DEVICE)
        next(steps)
        gpu.reset()
        got = next(steps)
        assert len(gpu.waits) == 1
        assert all(torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_gpu_gives_the_labels_of_the_cpu_and_waits_once(strategy):
    gt_boxes, gt_classes, pred, logits = crowded_batch(64)
    matcher = AnchorMatcher(strategy)
    expected = matcher(grid_anchors(), gt_boxes, gt_classes, pred, logits)
    on_gpu = (
        grid_anchors().cuda(),
        [b.cuda() for b in gt_boxes],
        [c.cuda() for c in gt_classes],
        pred.cuda(),
        logits.cuda(),
    )
    matcher(*on_gpu)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with pytest.warns(UserWarning) as warned:
            got = matcher(*on_gpu)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([w for w in warned if "synchroniz" in str(w.message)]) == 1
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a.cpu(), b)
