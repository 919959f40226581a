"""The pretended GPU itself: what it refuses, counts, and delays."""

import copy
import io

import pytest
import torch
from torch import nn

from tests.pretend_gpu import DEVICE, pretend_gpu


@pytest.fixture
def x(gpu):
    tensor = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).to(DEVICE)
    gpu.reset()
    return tensor


def test_a_network_trains_as_on_the_cpu(gpu):
    def train(device):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        model = model.to(device)
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        images = torch.randn(2, 3, 8, 8).to(device)
        for _ in range(3):
            loss = model(images).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss.device == torch.device(device) and loss.is_cuda == (device != "cpu")
        return [loss.detach().cpu(), *(p.detach().cpu() for p in model.state_dict().values())]

    assert all(map(torch.equal, train("cpu"), train("cuda:0")))


def test_devices_do_not_mix(x):
    with pytest.raises(RuntimeError, match=r"add mixes devices: .*cpu\(3,\)"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="mixes devices"):
        torch.cat([x, torch.ones(1, 3)])
    with pytest.raises(RuntimeError, match="index_select mixes devices"):
        x.index_select(1, torch.tensor([0]))
    with pytest.raises(RuntimeError, match="mixes devices"):
        x[:, [0, 2]]  # PyTorch would upload the index
    with pytest.raises(RuntimeError, match="mixes devices"):
        torch.ones(3)[x[0].long() % 3]
    with pytest.raises(TypeError, match="Use Tensor.cpu"):
        x.numpy()
    assert (x + torch.tensor(1.0)).is_cuda and (2 * x).is_cuda


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: float(x.sum()),
        lambda x: bool((x > 0).all()),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 2],
        lambda x: x.unique(),
        lambda x: x.masked_select(x > 2),
        lambda x: torch.equal(x, x),
        lambda x: x[0].repeat_interleave(x[0].long()),
        lambda x: x.long().flatten().bincount(minlength=9),
        lambda x: x.cpu(),
        lambda x: torch.empty(2, 3).copy_(x),
        lambda x: x[torch.tensor(1, device=DEVICE)],
        lambda x: torch.tensor([1, 2], device=DEVICE),
        lambda x: torch.zeros(2**15).to(DEVICE, non_blocking=True),  # not pinned: 128 KiB
        lambda x: torch.cuda.synchronize(),
    ],
)
def test_what_waits(x, gpu, read):
    read(x)
    assert gpu.waits


@pytest.mark.parametrize(
    "compute",
    [
        lambda x: x @ x.t(),
        lambda x: torch.where(x > 2, x, 0.0),
        lambda x: x.masked_fill_(x > 2, 0.0),
        lambda x: x.__setitem__(x > 2, 0.0),
        lambda x: torch.nonzero_static(x > 2, size=6),
        lambda x: x[0].repeat_interleave(x[0].long(), output_size=6),
        lambda x: x.sort(dim=1, descending=True),
        lambda x: x[:, 1:].clone().zero_(),
        lambda x: torch.zeros(2**14).to(DEVICE, non_blocking=True),  # 64 KiB
        lambda x: torch.zeros(2**15).pin_memory().to(DEVICE, non_blocking=True),
        lambda x: x.to("cpu", non_blocking=True),
        lambda x: torch.arange(3, device=DEVICE) + torch.full((3,), 2, device=DEVICE),
    ],
)
def test_what_does_not_wait(x, gpu, compute):
    compute(x)
    assert gpu.waits == [] and gpu.operators


def test_results_and_views(x):
    y = torch.zeros(2, 3, device=DEVICE)
    y[:, 0::2] = x[:, 1:] * 2  # a view written to
    y.unsqueeze_(0)
    assert y.shape == (1, 2, 3) and y.tolist() == [[[4.0, 0.0, 6.0], [10.0, 0.0, 12.0]]]
    assert x.long().dtype == torch.int64 and x.new_zeros(2).is_cuda
    assert copy.deepcopy(x).tolist() == x.tolist()
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    assert torch.load(file, weights_only=True).tolist() == x.tolist()


def test_a_copy_that_nobody_waited_for_has_not_arrived(x, gpu):
    there = x.to("cpu", non_blocking=True)
    assert (there == -1).all()
    x.sum().item()
    assert there.tolist() == x.tolist()


def test_an_event_waits_only_if_nothing_did_since(x, gpu):
    event = torch.cuda.Event()
    there = x.to("cpu", non_blocking=True)
    event.record()
    later = x.to("cpu", non_blocking=True)
    assert not event.query()
    event.synchronize()
    assert gpu.waits == ["event"] and there[1, 2] == 6 and later[1, 2] == -1
    event.record()
    x.sum().item()
    gpu.reset()
    event.synchronize()
    assert gpu.waits == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mixed_precision(gpu, dtype):
    layer = nn.Linear(3, 2).to(DEVICE)
    with torch.autocast("cuda", dtype):
        result = layer(torch.ones(1, 3, device=DEVICE))
    assert result.dtype == dtype
    result.float().sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_nothing_stays_behind():
    calls = torch.cuda.is_available, torch.cuda.Event
    with pretend_gpu():
        assert torch.cuda.is_available()
    assert (torch.cuda.is_available, torch.cuda.Event) == calls
    with pytest.raises(ZeroDivisionError), pretend_gpu():
        raise ZeroDivisionError
    assert torch.cuda.is_available is calls[0]
