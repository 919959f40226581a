"""
Time and memory of one matcher in one scenario, in a process of its own, so that peaks of memory do
not mix and a case that dies takes no other with it.

Memory is the peak during one call beyond what was allocated before it, outputs included: CUDA's own
counter, or the resident set of the process.
"""

import contextlib
import ctypes
import gc
import importlib.util
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .peers import MATCHERS, Case
from .scenarios import SCENARIOS, WARM_UP, make_batch

MIB = 2**20
SLOWEST_PROFILED_S = 2.0  # slower calls launch too many kernels for the profiler

# A server that has imported the slow modules, and runs nothing itself, forks the cases.
HAS_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
CONTEXT = multiprocessing.get_context("forkserver" if HAS_SERVER else "spawn")
# The first silences known warnings of the others.
SLOW_MODULES = ["mutual_guidance", "torch", "torchvision.models.detection", "benchmarks.scenarios"]
if HAS_SERVER:
    CONTEXT.set_forkserver_preload(SLOW_MODULES)


def run_case(case: Case) -> dict[str, Any]:
    """
    Measure one case in this process.

    Returns:
        ``status`` and, where it is "ok", ``median_ms``, ``q1_ms``, ``q3_ms``, ``repeats``,
        ``peak_mib`` (None where it cannot be known), ``output_mib`` and ``kernels`` (on CUDA).
    """
    if case.threads is not None:
        torch.set_num_threads(case.threads)
    if case.device.startswith("cuda:"):
        torch.cuda.set_device(case.device)  # what is waited for and measured below
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
