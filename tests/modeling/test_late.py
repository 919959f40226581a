"""Values that are used when they are there."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from mutual_guidance.modeling.late import put_scalars_later, use_later, use_now
from tests.pretend_gpu import DEVICE


def test_on_the_cpu_they_are_used_at_once(storage):
    used = []
    use_later(torch.tensor([1.0, 2.0]), lambda x: used.extend(x.tolist()))
    assert used == [1, 2]


def test_on_a_gpu_they_are_used_in_the_next_iteration_without_waiting(storage, gpu):
    used = []
    values = torch.arange(6.0).to(DEVICE)
    gpu.reset()
    for iteration in range(3):
        storage.iter = iteration
        use_later(values[iteration] + 10, lambda x: used.append(x.item()))
        use_later(values[iteration] + 20, lambda x: used.append(x.item()))
        assert used == [10, 20, 11, 21][: 2 * iteration]
        assert gpu.waits == []
        values.sum().item()  # as the matcher waits
        gpu.reset()
    use_now()
    assert used == [10, 20, 11, 21, 12, 22] and gpu.waits == []


def test_if_nothing_waited_they_are_waited_for(storage, gpu):
    used = []
    use_later(torch.ones(2).to(DEVICE), lambda x: used.extend(x.tolist()))
    gpu.reset()
    use_now()
    assert used == [1, 1] and gpu.waits == ["event"]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_scalars_belong_to_their_iteration(device, gpu):
    with EventStorage(7) as storage:
        one, nan = (torch.tensor(x).to(device) for x in (1.0, float("nan")))
        put_scalars_later({"a": one, "nothing": nan})
        storage.iter = 8
        put_scalars_later({"a": one * 2})
        use_now()
    assert storage.history("a").values() == [(1.0, 7), (2.0, 8)]
    assert "nothing" not in storage.histories()
