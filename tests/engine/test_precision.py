"""The precision that a device gets."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn.functional import conv2d

from mutual_guidance.config import load_config
from mutual_guidance.engine import precision as module
from mutual_guidance.engine.device import resolve_device
from mutual_guidance.errors import ConfigError
from tests.pretend_gpu import pretend_gpu
from tests.runs import CONFIG


def resolved(*opts):
    """AMP.ENABLED, AMP.PRECISION where it counts, and CHANNELS_LAST, of the quickstart's config."""
    cfg = load_config(CONFIG, opts)
    resolve_device(cfg)
    module.resolve_precision(cfg)
    amp = cfg.SOLVER.AMP
    return amp.ENABLED, amp.PRECISION if amp.ENABLED else "float32", cfg.MODEL.CHANNELS_LAST


@pytest.mark.parametrize(
    "has_bfloat16, expected",
    [(True, (True, "bfloat16", True)), (False, (False, "float32", False))],
)
def test_auto_on_a_cpu(has_bfloat16, expected, monkeypatch, caplog):
    monkeypatch.setattr(module, "_cpu_has_bfloat16", lambda: has_bfloat16)
    with caplog.at_level("INFO"):
        assert resolved("MODEL.DEVICE", "cpu") == expected
    assert f"SOLVER.AMP.PRECISION auto is {expected[1]} on this device, channels-" in caplog.text


@pytest.mark.parametrize(
    "capability, precision", [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")]
)
def test_auto_on_a_gpu(capability, precision):
    with pretend_gpu(capability):
        assert resolved() == (True, precision, True)


@pytest.mark.parametrize(
    "capability, others, precision",
    [((8, 0), "float16", "float16"), ((7, 5), "bfloat16", "float16"), (None, "float32", "float32")],
)
def test_auto_is_one_precision_for_all_processes(capability, others, precision, monkeypatch):
    monkeypatch.setattr(module, "_cpu_has_bfloat16", lambda: True)
    monkeypatch.setattr(module.comm, "all_gather", lambda own: [own, others])
    with pretend_gpu(capability) if capability else nullcontext():
        on_device = () if capability else ("MODEL.DEVICE", "cpu")
        assert resolved(*on_device)[1] == precision


def test_what_is_named_stays():
    cpu = ("MODEL.DEVICE", "cpu")
    assert resolved(*cpu, "SOLVER.AMP.ENABLED", False) == (False, "float32", False)
    assert resolved(*cpu, "SOLVER.AMP.PRECISION", "bfloat16") == (True, "bfloat16", False)


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_bfloat16_without_instructions_is_told(device, monkeypatch):
    monkeypatch.setattr(module, "_cpu_has_bfloat16", lambda: False)
    named = ("MODEL.DEVICE", device, "SOLVER.AMP.PRECISION", "bfloat16")
    told = module.slow_precision(load_config(CONFIG, named))
    assert "PRECISION bfloat16: this device" in told and told.endswith("auto takes float32 here")
    others = (("SOLVER.AMP.ENABLED", False), ("SOLVER.AMP.PRECISION", "auto"))
    for fast in (*others, ("MODEL.DEVICE", "cuda"), ("MODEL.DEVICE", "mps")):  # not there
        assert not module.slow_precision(load_config(CONFIG, (*named, *fast)))
    monkeypatch.setattr(module, "_cpu_has_bfloat16", lambda: True)
    assert not module.slow_precision(load_config(CONFIG, named))


@pytest.mark.parametrize("capability, told", [((7, 5), "auto takes float16 here"), ((8, 0), "")])
def test_bfloat16_on_an_old_gpu_is_told(capability, told):
    with pretend_gpu(capability):
        cfg = load_config(CONFIG, ("SOLVER.AMP.PRECISION", "bfloat16"))
        assert module.slow_precision(cfg).endswith(told)
        assert bool(module.slow_precision(cfg)) == bool(told)


def convolved(x, weight, bias):
    """A convolution and its gradients."""
    leaves = [t.clone().requires_grad_() for t in (x, weight, bias)]
    y = conv2d(leaves[0], leaves[1], bias=leaves[2], stride=2, padding=1)
    y.backward(torch.ones_like(y))
    return (y.detach(), *(t.grad for t in leaves))


def test_convolutions_without_instructions_are_rounded_once(monkeypatch):
    monkeypatch.setattr(module, "_cpu_has_bfloat16", lambda: False)
    random = torch.Generator().manual_seed(1)
    sizes = ((2, 8, 9, 9), (6, 8, 3, 3), (6,))
    x, weight, bias = (torch.randn(size, generator=random) for size in sizes)
    x = x.bfloat16().to(memory_format=torch.channels_last)
    exact = convolved(*(t.bfloat16().double() for t in (x, weight, bias)))
    with module.autocast_on_cpu(torch.bfloat16):
        ours = convolved(x, weight, bias)
    assert [t.dtype for t in ours] == [torch.bfloat16, torch.bfloat16, *[torch.float32] * 2]
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    for value, expected in zip(ours, exact, strict=True):
        # Half a unit of the last of eight bits, and float32's rounding.
        torch.testing.assert_close(value.double(), expected, rtol=2**-8, atol=1e-5)
        assert torch.equal(value, value.bfloat16().to(value.dtype))


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_only_without_instructions_convolutions_are_in_float32(has_bfloat16, monkeypatch):
    monkeypatch.setattr(module, "_cpu_has_bfloat16", lambda: has_bfloat16)
    seen = []
    monkeypatch.setattr(module, "_rounded", lambda value: seen.append(value) or value)
    image = torch.ones(1, 1, 3, 3)
    with module.autocast_on_cpu(torch.bfloat16):
        with torch.autocast("cpu", enabled=False):
            assert conv2d(image, image).dtype == torch.float32 and not seen
        conv2d(image, image)
    assert bool(seen) != has_bfloat16


def test_float16_needs_a_gpu():
    half = ("SOLVER.AMP.PRECISION", "float16")
    for device in ("cpu", "auto"):
        cfg = load_config(CONFIG, ("MODEL.DEVICE", device, *half))
        with pytest.raises(ConfigError, match="float16 needs a GPU: set it to auto"):
            module.check_precision(cfg)
    assert resolved("MODEL.DEVICE", "cpu", *half)[1] == "float16"  # evaluations do not use it
    module.check_precision(load_config(CONFIG, (*half, "SOLVER.AMP.ENABLED", False)))


@pytest.mark.parametrize(
    "flags, expected",
    [("avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx512f avx2", False)],
)
def test_flags_of_a_cpu(flags, expected, tmp_path):
    (tmp_path / "cpuinfo").write_text(f"model name\t: some CPU\nflags\t\t: fpu {flags} sse\n")
    assert module._cpu_has_bfloat16(str(tmp_path / "cpuinfo")) == expected
    assert not module._cpu_has_bfloat16(str(tmp_path / "nothing"))
