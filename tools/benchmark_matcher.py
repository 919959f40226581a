#!/usr/bin/env python3
"""
Time and memory of the matcher, beside other matchers on the same synthetic batches.

    python tools/benchmark_matcher.py --device cpu --threads 2
    python tools/benchmark_matcher.py --device cuda --scenarios voc coco

prints a table and writes table.md, results.json and objects.png (time and memory against the number
of objects) to the output folder. Every case runs in a process of its own, so that peaks of memory
do not mix and a case that dies takes no other with it.

What a matcher wants its inputs to look like (sigmoid scores, padded ground truths) is made ready
off the clock. Memory is the peak during one call beyond what was allocated before it, outputs
included: CUDA's own counter, or the resident set of the process.

Shape symbols: N images, R anchors, M_i ground truths of image i, M of the batch, K classes.
"""

import argparse
import contextlib
import ctypes
import gc
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for tests.assignment.plain

matplotlib.use("Agg")

OURS = "Mutual Guidance"
SIGMA = 2.0
THRESHOLDS = (0.4, 0.5)
MIB = 2**20
SLOWEST_PROFILED_S = 2.0  # slower calls launch too many kernels for the profiler

# A server that has imported the slow modules, and runs nothing itself, forks the cases.
HAS_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if HAS_SERVER else "spawn")
SLOW_MODULES = ["torch", "torchvision.models.detection", "detectron2.modeling", "matplotlib"]


# ---------------------------------------------------------------------------------------------
# Scenarios
# ---------------------------------------------------------------------------------------------
class Scenario(NamedTuple):
    """A synthetic batch of images with anchors on a pyramid."""

    num_images: int
    size: tuple[int, int]  # height, width in pixels
    strides: tuple[int, ...]
    anchor_sizes: tuple[tuple[float, ...], ...]  # of each level, pixels
    aspect_ratios: tuple[float, ...]
    num_objects: int  # of the batch
    num_classes: int
    object_sides: tuple[float, float]  # pixels, log-uniform
    crowd: int = 0  # so many of the objects are in the first image, and no others

    @property
    def num_anchors(self) -> int:
        """R."""
        cells = [-(-self.size[0] // s) * -(-self.size[1] // s) for s in self.strides]
        anchors = [len(sizes) * len(self.aspect_ratios) for sizes in self.anchor_sizes]
        return sum(c * a for c, a in zip(cells, anchors, strict=True))

    @property
    def most_crowded(self) -> int:
        """Objects of the most crowded image, as expected of the random ones."""
        return max(self.crowd, -(-(self.num_objects - self.crowd) // self.num_images))


class Batch(NamedTuple):
    """What a matcher gets."""

    anchors: Tensor  # (R, 4)
    level_sizes: list[int]  # anchors of each level
    gt_boxes: list[Tensor]  # N x (M_i, 4)
    gt_classes: list[Tensor]  # N x (M_i,)
    pred_boxes: Tensor  # (N, R, 4)
    pred_logits: Tensor  # (N, R, K)


_SSD = Scenario(
    num_images=32,
    size=(320, 320),
    strides=(8, 16, 32, 64),
    anchor_sizes=tuple((24.0 * 2**i, 24.0 * 2 ** (i + 0.5)) for i in range(4)),
    aspect_ratios=(1.0, 0.5, 2.0),
    num_objects=80,
    num_classes=20,
    object_sides=(30, 300),
)
_DENSE = Scenario(
    num_images=128,
    size=(640, 640),
    strides=(8, 16, 32),
    anchor_sizes=((32.0,), (64.0,), (128.0,)),
    aspect_ratios=(1.0,),
    num_objects=75_000,
    num_classes=60,
    object_sides=(8, 48),
    crowd=5_000,
)
_LARGE = Scenario(
    num_images=16,
    size=(800, 1333),
    strides=(8, 16, 32, 64, 128),
    anchor_sizes=tuple(tuple(32.0 * 2 ** (i + j / 3) for j in range(3)) for i in range(5)),
    aspect_ratios=(0.5, 1.0, 2.0),
    num_objects=100,
    num_classes=80,
    object_sides=(20, 700),
)
SWEEP = (10, 30, 100, 300, 1_000, 2_500, 5_000)
SCENARIOS = {
    "voc": _SSD,
    "coco": _SSD._replace(num_objects=200, num_classes=80, object_sides=(10, 300)),
    "dense": _DENSE,
    "large": _LARGE,  # 100 objects in the batch
    "large_crowded": _LARGE._replace(num_objects=1_600),  # 100 objects an image
    **{
        f"sweep_{count}": _DENSE._replace(
            num_images=8, num_objects=count, object_sides=(16, 256), crowd=0
        )
        for count in SWEEP
    },
}
# Runs before every measurement, so that what is made once for all calls is there.
WARM_UP = _SSD._replace(num_images=2, num_objects=6)


def make_batch(scenario: Scenario, device: str, seed: int = 0) -> Batch:
    """The same batch on every device: predicted boxes near their anchors, logits of about -4."""
    from detectron2.modeling.box_regression import Box2BoxTransform

    generator = torch.Generator().manual_seed(seed)
    levels = make_anchors(scenario)
    anchors = torch.cat(levels)
    shape = (scenario.num_images, len(anchors))
    deltas = torch.randn(*shape, 4, generator=generator) * torch.tensor([0.1, 0.1, 0.2, 0.2])
    transform = Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0))
    pred_boxes = torch.stack([transform.apply_deltas(d, anchors) for d in deltas])
    logits = torch.randn(*shape, scenario.num_classes, generator=generator) - 4
    boxes = make_objects(scenario, generator)
    classes = [torch.randint(scenario.num_classes, (len(b),), generator=generator) for b in boxes]
    return Batch(
        anchors=anchors.to(device),
        level_sizes=[len(level) for level in levels],
        gt_boxes=[b.to(device) for b in boxes],
        gt_classes=[c.to(device) for c in classes],
        pred_boxes=pred_boxes.to(device),
        pred_logits=logits.to(device),
    )


def make_anchors(scenario: Scenario) -> list[Tensor]:
    """The anchors (R_i, 4) of each level, by Detectron2's generator."""
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

    generate = DefaultAnchorGenerator(
        sizes=[list(sizes) for sizes in scenario.anchor_sizes],
        aspect_ratios=[list(scenario.aspect_ratios)],
        strides=list(scenario.strides),
        offset=0.5,
    )
    height, width = scenario.size
    features = [torch.zeros(1, 1, -(-height // s), -(-width // s)) for s in scenario.strides]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid")  # noise of Detectron2's
        return [boxes.tensor for boxes in generate(features)]


def make_objects(scenario: Scenario, generator: torch.Generator) -> list[Tensor]:
    """N tensors (M_i, 4): boxes anywhere in the image, cut at its border."""
    free = scenario.num_objects - scenario.crowd
    first_free = 1 if scenario.crowd else 0
    images = torch.randint(first_free, scenario.num_images, (free,), generator=generator)
    counts = images.bincount(minlength=scenario.num_images)
    counts[0] += scenario.crowd

    extent = torch.tensor([scenario.size[1], scenario.size[0]]).float()
    low, high = torch.tensor(scenario.object_sides).log()
    total = scenario.num_objects
    sides = (low + (high - low) * torch.rand(total, 1, generator=generator)).exp()
    stretch = (torch.randn(total, 1, generator=generator) * 0.2).exp()
    half = torch.cat((sides * stretch, sides / stretch), dim=1) / 2  # (M, 2)
    centres = torch.rand(total, 2, generator=generator) * extent
    low_corners, high_corners = (centres - half).clamp(min=0), torch.min(centres + half, extent)
    return list(torch.cat((low_corners, high_corners), dim=1).split(counts.tolist()))


# ---------------------------------------------------------------------------------------------
# Matchers
# ---------------------------------------------------------------------------------------------
class Case(NamedTuple):
    """One matcher in one scenario, and how to measure it."""

    scenario: str
    matcher: str
    device: str = "cpu"
    threads: int | None = None  # torch's own choice
    repeats: int = 20
    seconds: float = 60.0  # no new repeat after so long
    strategy: str = "mutual_guidance"
    memory_budget: int = 2**30  # bytes


def ours(batch: Batch, case: Case) -> Callable[[], Any]:
    """The package's matcher."""
    from mutual_guidance.assignment import AnchorMatcher

    matcher = AnchorMatcher(case.strategy, SIGMA, THRESHOLDS, memory_budget=case.memory_budget)
    inputs = (batch.anchors, batch.gt_boxes, batch.gt_classes, batch.pred_boxes, batch.pred_logits)
    return lambda: matcher(*inputs)


def plain(batch: Batch, case: Case) -> Callable[[], Any]:
    """The same labels by loops over images and ground truths."""
    from tests.assignment.plain import match_anchors

    inputs = (batch.anchors, batch.gt_boxes, batch.gt_classes, batch.pred_boxes, batch.pred_logits)
    num_classes = batch.pred_logits.shape[2]
    return lambda: match_anchors(case.strategy, SIGMA, THRESHOLDS, *inputs, num_classes)


def detectron2(batch: Batch, case: Case) -> Callable[[], Any]:
    """The static rule, as in Detectron2's RetinaNet."""
    from detectron2.modeling.matcher import Matcher
    from detectron2.structures import Boxes, pairwise_iou

    matcher = Matcher(list(THRESHOLDS), [0, -1, 1], allow_low_quality_matches=True)
    anchors, gt_boxes = Boxes(batch.anchors), [Boxes(b) for b in batch.gt_boxes]
    return lambda: [matcher(pairwise_iou(boxes, anchors)) for boxes in gt_boxes]


def torchvision(batch: Batch, case: Case) -> Callable[[], Any]:
    """The static rule, as in torchvision's RetinaNet; images without objects are left out."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    matcher = Matcher(THRESHOLDS[1], THRESHOLDS[0], allow_low_quality_matches=True)
    gt_boxes = [boxes for boxes in batch.gt_boxes if len(boxes)]
    return lambda: [matcher(box_iou(boxes, batch.anchors)) for boxes in gt_boxes]


def _mmdet_instances(batch: Batch) -> list[tuple[Any, Any]]:
    """Predictions and ground truths of each image in mmdetection's structure."""
    from mmengine.structures import InstanceData

    return [
        (
            InstanceData(priors=batch.anchors, bboxes=pred_boxes, scores=logits.sigmoid()),
            InstanceData(bboxes=boxes, labels=classes),
        )
        for boxes, classes, pred_boxes, logits in zip(
            batch.gt_boxes, batch.gt_classes, batch.pred_boxes, batch.pred_logits, strict=True
        )
    ]


def mmdet_task_aligned(batch: Batch, case: Case) -> Callable[[], Any]:
    """TOOD's assigner."""
    from mmdet.models.task_modules.assigners import TaskAlignedAssigner

    assigner, images = TaskAlignedAssigner(topk=13), _mmdet_instances(batch)
    return lambda: [assigner.assign(preds, gts, alpha=1, beta=6) for preds, gts in images]


def mmdet_atss(batch: Batch, case: Case) -> Callable[[], Any]:
    """ATSS's assigner."""
    from mmdet.models.task_modules.assigners import ATSSAssigner

    assigner, images = ATSSAssigner(topk=9), _mmdet_instances(batch)
    return lambda: [assigner.assign(preds, batch.level_sizes, gts) for preds, gts in images]


def ultralytics_task_aligned(batch: Batch, case: Case) -> Callable[[], Any]:
    """The assigner of Ultralytics' detectors, which pads to the most crowded image."""
    from torch.nn.utils.rnn import pad_sequence
    from ultralytics.utils.tal import TaskAlignedAssigner

    num_classes = batch.pred_logits.shape[2]
    assigner = TaskAlignedAssigner(topk=10, num_classes=num_classes, alpha=0.5, beta=6.0)
    inputs = (
        batch.pred_logits.sigmoid(),
        batch.pred_boxes,
        (batch.anchors[:, :2] + batch.anchors[:, 2:]) / 2,
        pad_sequence(batch.gt_classes, batch_first=True)[..., None],  # (N, max M_i, 1)
        pad_sequence(batch.gt_boxes, batch_first=True),
        pad_sequence([torch.ones_like(c) for c in batch.gt_classes], batch_first=True)[..., None],
    )
    return lambda: assigner(*inputs)


class Matcher(NamedTuple):
    """How to call a matcher, and what it needs."""

    prepare: Callable[[Batch, Case], Callable[[], Any]]
    module: str  # not installed where it cannot be found
    bytes_per_cell: int = 0  # lower bound of what a cell of its largest matrix costs
    pads: bool = False  # that matrix is N x max M_i x R, and not max M_i x R

    def needed_bytes(self, scenario: Scenario) -> int:
        """Lower bound of the memory that the scenario takes."""
        images = scenario.num_images if self.pads else 1
        return self.bytes_per_cell * images * scenario.most_crowded * scenario.num_anchors


MATCHERS = {
    OURS: Matcher(ours, "mutual_guidance"),
    "plain per image and object": Matcher(plain, "tests.assignment.plain", 24),
    "Detectron2 Matcher": Matcher(detectron2, "detectron2", 16),
    "torchvision Matcher": Matcher(torchvision, "torchvision", 16),
    "mmdetection TaskAlignedAssigner": Matcher(mmdet_task_aligned, "mmdet", 16),
    "mmdetection ATSSAssigner": Matcher(mmdet_atss, "mmdet", 16),
    "ultralytics TaskAlignedAssigner": Matcher(
        ultralytics_task_aligned, "ultralytics", 16, pads=True
    ),
}


# ---------------------------------------------------------------------------------------------
# Measurement
# ---------------------------------------------------------------------------------------------
def run_case(case: Case) -> dict[str, Any]:
    """
    Measure one case in this process.

    Returns:
        ``status`` and, where it is "ok", ``median_ms``, ``q1_ms``, ``q3_ms``, ``repeats``,
        ``peak_mib`` (None where it cannot be known), ``output_mib`` and ``kernels`` (on CUDA).
    """
    if case.threads is not None:
        torch.set_num_threads(case.threads)
    scenario, matcher = SCENARIOS[case.scenario], MATCHERS[case.matcher]
    needed, available = matcher.needed_bytes(scenario), available_bytes(case.device)
    if needed > available:
        return {"status": f"skipped: needs over {needed / 2**30:.0f} GiB"}
    with torch.no_grad():
        matcher.prepare(make_batch(WARM_UP, case.device), case)()
        call = matcher.prepare(make_batch(scenario, case.device), case)
        times = call_times(call, case)
        median = float(np.median(times))
        if case.device == "cpu":
            map_large_blocks()
        peak, result = peak_bytes(call, case.device)
        output = sum(t.nbytes for t in tensors_in(result))
        del result
        profiled = case.device.startswith("cuda") and median < SLOWEST_PROFILED_S
        kernels = count_kernels(call) if profiled else None
    q1, q3 = np.percentile(times, (25, 75)).tolist()
    return {
        "status": "ok",
        "median_ms": median * 1e3,
        "q1_ms": q1 * 1e3,
        "q3_ms": q3 * 1e3,
        "repeats": len(times),
        "peak_mib": None if peak is None else peak / MIB,
        "output_mib": output / MIB,
        "kernels": kernels,
    }


def call_times(call: Callable[[], Any], case: Case) -> list[float]:
    """Seconds of each repeat; a first call warms up, and counts only where it took all the time."""
    times: list[float] = []
    while not times or (len(times) <= case.repeats and sum(times) < case.seconds):
        synchronize(case.device)
        start = time.perf_counter()
        call()
        synchronize(case.device)
        times.append(time.perf_counter() - start)
    return times[1:] or times


def synchronize(device: str) -> None:
    """Wait for all kernels."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_bytes(call: Callable[[], Any], device: str) -> tuple[int | None, Any]:
    """Memory that a call takes beyond what was allocated before it, and its result."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before, result
    if not reset_peak_of_process():
        return None, call()
    before = memory_of_process("VmRSS")
    result = call()
    return memory_of_process("VmHWM") - before, result


def map_large_blocks() -> None:
    """
    Let glibc map every block above 1 MiB on its own and unmap it when freed.

    The peak is then that of the tensors alive. Otherwise what the heap keeps of freed blocks may
    count as well, and the peak of one call varies from run to run. It slows calls down.
    """
    m_mmap_threshold = -3  # of malloc.h
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(m_mmap_threshold, MIB)


def reset_peak_of_process() -> bool:
    """Give freed memory back and forget the highest resident set; False where Linux forbids it."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError, TypeError):
        return False
    return True


def memory_of_process(field: str) -> int:
    """Bytes of a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def available_bytes(device: str) -> float:
    """Memory that is free on the device; infinite where it cannot be known."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info()[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def tensors_in(result: Any) -> list[Tensor]:
    """The tensors of a matcher's result, one level of lists and tuples after another."""
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, (list, tuple)):
        return [tensor for part in result for tensor in tensors_in(part)]
    return [value for value in getattr(result, "__dict__", {}).values() if torch.is_tensor(value)]


def count_kernels(call: Callable[[], Any]) -> int:
    """Kernels that a call launches on the GPU, without copies and fills."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    names = [e.name for e in profiler.events() if e.device_type == DeviceType.CUDA]
    return sum(not name.startswith(("Memcpy", "Memset")) for name in names)


def measure(case: Case, timeout: float) -> dict[str, Any]:
    """Measure one case in a process of its own; its identity and :func:`run_case`'s result."""
    try:
        installed = importlib.util.find_spec(MATCHERS[case.matcher].module) is not None
    except ModuleNotFoundError:  # the parent package is missing
        installed = False
    result = in_process(run_case, case, timeout) if installed else {"status": "not installed"}
    return {"scenario": case.scenario, "matcher": case.matcher, **result}


def in_process(
    function: Callable[[Any], dict[str, Any]], argument: Any, timeout: float
) -> dict[str, Any]:
    """Result of ``function(argument)`` in a new process, or a ``status`` that says what befell."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_send_result, args=(function, argument, sender), daemon=True)
    process.start()
    sender.close()
    try:
        if not receiver.poll(timeout):
            process.kill()
            return {"status": f"skipped: over {timeout:g} s"}
        return receiver.recv()
    except EOFError:
        process.join()
        return {"status": f"died with exit code {process.exitcode}, perhaps of memory"}
    finally:
        process.join()


def _send_result(function: Callable[[Any], dict[str, Any]], argument: Any, sender: Any) -> None:
    try:
        result = function(argument)
    except Exception as error:  # of any matcher, which must not end the run
        first_line = (str(error).splitlines() or [""])[0]
        result = {"status": f"failed: {type(error).__name__}: {first_line}"[:120]}
    sender.send(result)


# ---------------------------------------------------------------------------------------------
# Report
# ---------------------------------------------------------------------------------------------
def add_ratios(results: list[dict[str, Any]]) -> None:
    """Add ``ratio``: the median time over that of our matcher in the same scenario."""
    medians = {r["scenario"]: r.get("median_ms") for r in results if r["matcher"] == OURS}
    for result in results:
        base = medians.get(result["scenario"])
        has_both = base is not None and "median_ms" in result
        result["ratio"] = result["median_ms"] / base if has_both else None


def format_table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table."""
    headers = ["scenario", "matcher", "time (ms)", "interquartile (ms)", "time / ours"]
    headers += ["peak memory (MiB)", "kernels"]
    rows = []
    for result in results:
        row = [result["scenario"], result["matcher"]]
        if result["status"] != "ok":
            rows.append([*row, result["status"], "", "", "", ""])
            continue
        spread = f"{result['q1_ms']:.4g} to {result['q3_ms']:.4g}"
        ratio, peak = result["ratio"], result["peak_mib"]
        row += [f"{result['median_ms']:.4g}", spread, "" if ratio is None else f"{ratio:.2f}"]
        row += ["" if peak is None else f"{peak:.0f}", result["kernels"]]
        rows.append(row)
    alignment = ("left", "left", *["right"] * 5)
    return tabulate(
        rows, headers, tablefmt="github", colalign=alignment, disable_numparse=True, missingval=""
    )


def machine(device: str, threads: int | None) -> dict[str, Any]:
    """What the figures were measured on, and by which command."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    packages = ("torch", "torchvision", "mmdet", "ultralytics")
    on_cuda = device.startswith("cuda")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads or torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_cuda else "cpu",
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := version_of(name))},
        "command": shlex.join(["python", "tools/benchmark_matcher.py", *sys.argv[1:]]),
    }


def version_of(package: str) -> str | None:
    """Version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw time and memory against the number of objects in a batch of 8 images."""
    import matplotlib.pyplot as plt

    sweep = [r for r in results if r["scenario"].startswith("sweep_") and r["status"] == "ok"]
    if not sweep:
        return
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    fields = {"median_ms": "time of a call (ms)", "peak_mib": "peak memory of a call (MiB)"}
    for axis, (field, label) in zip(axes, fields.items(), strict=True):
        for name in MATCHERS:
            points = [r for r in sweep if r["matcher"] == name and r[field]]
            counts = [SCENARIOS[r["scenario"]].num_objects for r in points]
            if points:
                width = 2.5 if name == OURS else 1.2
                axis.plot(counts, [r[field] for r in points], "o-", label=name, linewidth=width)
        axis.set(xscale="log", yscale="log", xlabel="objects in the batch", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.suptitle("8 images, 8,400 anchors each")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    names = [name for name in SCENARIOS if not name.startswith("sweep_")] + ["sweep"]
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--threads", type=int, help="of PyTorch on the CPU; its own choice if left")
    parser.add_argument("--scenarios", nargs="+", choices=names, default=names)
    parser.add_argument("--matchers", nargs="+", choices=list(MATCHERS), default=list(MATCHERS))
    parser.add_argument("--repeats", type=int, default=20, help="timed calls of a case")
    parser.add_argument("--seconds", type=float, default=60, help="no new repeat after so long")
    parser.add_argument("--timeout", type=float, default=600, help="seconds of a case, all told")
    parser.add_argument("--strategy", default="mutual_guidance")
    parser.add_argument("--memory-budget", type=int, default=1024, help="of ours, in MiB")
    parser.add_argument("--output", type=Path, default=Path("output", "benchmark_matcher"))
    return parser.parse_args(args)


def make_cases(options: argparse.Namespace) -> list[Case]:
    """Every matcher in every scenario."""
    shared = (options.device, options.threads, options.repeats, options.seconds)
    shared += (options.strategy, options.memory_budget * MIB)
    return [
        Case(scenario, matcher, *shared)
        for scenario in SCENARIOS
        if ("sweep" if scenario.startswith("sweep_") else scenario) in options.scenarios
        for matcher in options.matchers
    ]


def main(args: list[str] | None = None) -> None:
    """Measure all cases and report."""
    options = parse_args(args)
    if HAS_SERVER:
        CONTEXT.set_forkserver_preload(SLOW_MODULES)
    results = []
    with tqdm(make_cases(options), unit="case") as progress:
        for case in progress:
            progress.set_postfix_str(f"{case.scenario}: {case.matcher}")
            results.append(measure(case, options.timeout))
    add_ratios(results)
    table = format_table(results)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "table.md").write_text(table + "\n")
    report = {
        "machine": machine(options.device, options.threads),
        "strategy": options.strategy,
        "memory_budget_mib": options.memory_budget,
        "scenarios": {r["scenario"]: SCENARIOS[r["scenario"]]._asdict() for r in results},
        "results": results,
    }
    (options.output / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    draw(results, options.output / "objects.png")
    print(f"\n{table}\n\nWritten to {options.output}/")


if __name__ == "__main__":
    main()
