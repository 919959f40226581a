"""What a call costs the device: waits of the host, and memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mutual_guidance.assignment import STRATEGIES, AnchorMatcher, GroundTruths, PointMatcher
from tests.conftest import count_waits
from tests.pretend_gpu import DEVICE

from .scenes import STRATEGY_NAMES, random_boxes
from .test_matcher import EXTENT, fcos_points, some_anchors

# Of a call of one chunk by a strategy of the paper: on a GPU each has to be launched.
MOST_OPERATORS = 200


def crowded_batch(num_candidates, num_images=4, num_classes=3):
    generator = torch.Generator().manual_seed(0)
    gt_boxes = [random_boxes(generator, 9, EXTENT, 3, 20) for _ in range(num_images)]
    gt_classes = [torch.randint(num_classes, (9,), generator=generator) for _ in gt_boxes]
    pred = random_boxes(generator, num_images * num_candidates, EXTENT, 1, EXTENT)
    logits = torch.randn(num_images, num_candidates, num_classes, generator=generator)
    return gt_boxes, gt_classes, pred.view(num_images, num_candidates, 4), logits


def test_logits_may_have_any_layout():
    boxes, classes, pred_boxes, logits = crowded_batch(64)
    matcher = AnchorMatcher()
    expected = matcher(some_anchors(), boxes, classes, pred_boxes, logits)
    transposed = logits.transpose(1, 2).contiguous().transpose(1, 2)
    assert not transposed.is_contiguous()
    labels = matcher(some_anchors(), boxes, classes, pred_boxes, transposed)
    assert all(map(torch.equal, labels, expected))


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor made, in bytes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if torch.is_tensor(result):
            self.bytes = max(self.bytes, result.numel() * result.element_size())
        return result


def test_no_tensor_is_padded_to_the_most_crowded_image():
    # 1 of 64 images has 256 objects, the others 1: padding would make 64 x 256 x 64 cells.
    generator = torch.Generator().manual_seed(0)
    sizes = [256] + [1] * 63
    gt_boxes = [random_boxes(generator, m, EXTENT, 3, 8) for m in sizes]
    gt_classes = [torch.zeros(m, dtype=torch.int64) for m in sizes]
    pred = some_anchors().expand(64, 64, 4)
    with Largest() as largest:
        AnchorMatcher("localize_to_classify", num_classes=1)(
            some_anchors(), gt_boxes, gt_classes, pred
        )
    rows = sum(sizes) * 64 * 4 * 4  # bytes of four float32 coordinates a cell
    assert largest.bytes <= rows < 64 * 256 * 64 * 4


@pytest.mark.parametrize("memory_budget", [2**30, 2**16])  # in one chunk, in many
@pytest.mark.parametrize("kind", ["anchors", "points"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_labels_and_targets_on_a_pretended_gpu_are_the_cpus(strategy, kind, memory_budget, gpu):
    anchors = kind == "anchors"
    matcher = (AnchorMatcher if anchors else PointMatcher)(strategy, memory_budget=memory_budget)
    geometry = (some_anchors(),) if anchors else fcos_points()
    sizes = [30, 20, 14] if anchors else [64, 16, 4]  # the host would wait to count them
    boxes, classes, *predictions = crowded_batch(len(geometry[0]))

    def on(device):
        truth = [x.to(device) for x in boxes], [x.to(device) for x in classes]
        moved, predicted = ([x.to(device) for x in xs] for xs in (geometry, predictions))
        gpu.reset()
        truth, candidates = GroundTruths.cat(*truth), matcher.candidates(*moved, sizes)
        labels = matcher.match(candidates, truth, *predicted)
        num_operators = len(gpu.operators)
        targets = matcher.score_targets(candidates, truth, *predicted, labels)
        return [*labels, targets], num_operators

    expected, _ = on("cpu")
    got, num_operators = on(DEVICE)
    assert gpu.waits == ["tolist"]
    assert all(torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))
    if strategy in STRATEGY_NAMES and memory_budget == 2**30:
        assert num_operators <= MOST_OPERATORS


@pytest.mark.gpu
@pytest.mark.parametrize("memory_budget", [2**30, 2**16])
@pytest.mark.parametrize("kind", ["anchors", "points"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_real_gpu_gives_the_labels_of_the_cpu(strategy, kind, memory_budget):
    anchors = kind == "anchors"
    matcher = (AnchorMatcher if anchors else PointMatcher)(strategy, memory_budget=memory_budget)
    geometry = (some_anchors(),) if anchors else fcos_points()
    sizes = {} if anchors else {"level_sizes": [64, 16, 4]}  # the host would wait to count them
    boxes, classes, *predictions = crowded_batch(len(geometry[0]))
    expected = matcher(*geometry, boxes, classes, *predictions, **sizes)
    geometry, boxes, classes, predictions = (
        [x.cuda() for x in tensors] for tensors in (geometry, boxes, classes, predictions)
    )
    labels = []

    def call():
        labels[:] = matcher(*geometry, boxes, classes, *predictions, **sizes)

    call()
    waits = count_waits(call)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(labels, expected, strict=True))
    if memory_budget == 2**30:
        assert waits == 1
