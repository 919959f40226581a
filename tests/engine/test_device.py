import pytest

from mutual_guidance.config import load_config
from mutual_guidance.engine import device as module
from mutual_guidance.engine.device import resolve_device
from mutual_guidance.engine.precision import slow_precision
from mutual_guidance.errors import ConfigError
from tests.pretend_gpu import pretend_gpu
from tests.runs import CONFIG


def test_device():
    cfg = load_config(CONFIG, [])
    resolve_device(cfg)
    assert cfg.MODEL.DEVICE == "cpu"
    cfg.MODEL.DEVICE = "cuda"
    with pytest.raises(ConfigError, match="finds no such GPU"):
        resolve_device(cfg)


@pytest.mark.parametrize("device", ["cuda:1", "cuda:x"])
def test_a_gpu_that_is_not_there(device):
    cfg = load_config(CONFIG, ["MODEL.DEVICE", device, "SOLVER.AMP.PRECISION", "bfloat16"])
    with pretend_gpu((7, 5)):
        assert not slow_precision(cfg)
        with pytest.raises(ConfigError, match=f"is '{device}', but PyTorch finds no such GPU"):
            resolve_device(cfg)


def test_a_named_gpu_becomes_the_current_one(monkeypatch):
    current = []
    with pretend_gpu(), monkeypatch.context() as patched:
        patched.setattr("torch.cuda.set_device", current.append)
        for device in ("cuda:0", "cuda", "cpu"):
            resolve_device(load_config(CONFIG, ["MODEL.DEVICE", device]))
    assert current == ["cuda:0"]


def test_each_of_several_processes_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    with pretend_gpu((9, 0)):
        resolve_device(load_config(CONFIG))
        with pytest.raises(ConfigError, match="MODEL.DEVICE is 'cpu', but each of several"):
            resolve_device(load_config(CONFIG, ["MODEL.DEVICE", "cpu"]))
    resolve_device(load_config(CONFIG, ["MODEL.DEVICE", "cpu"]))


@pytest.mark.parametrize(
    ("cuda", "why"), [("13.0", "for CUDA 13.0, which needs"), (None, "without")]
)
def test_a_gpu_that_pytorch_cannot_use_is_told(cuda, why, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("torch.version.cuda", cuda)
    monkeypatch.setattr(module, "_NVIDIA_DEVICE", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    resolve_device(load_config(CONFIG))
    assert "there is a GPU, but not for this PyTorch" in caplog.text and why in caplog.text
    caplog.clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    resolve_device(load_config(CONFIG))
    assert "there is a GPU" not in caplog.text


def test_a_gpu_that_is_too_old_is_refused():
    message = r"of compute capability 7\.5 or more, and a pretended GPU has 7\.0: install one for"
    with pretend_gpu((7, 0)), pytest.raises(ConfigError, match=message):
        resolve_device(load_config(CONFIG))
