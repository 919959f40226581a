"""
Values for Detectron2's event storage that nobody waits for.

On a GPU a value is copied to the host behind the work that makes it, and read in the next
iteration, when that work is long done; on the CPU it is read at once. (Detectron2's own
``async_write_metrics`` reads in a thread, in which an error ends unseen.)
"""

import math
from collections.abc import Callable

import torch
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor


class _OnItsWay:
    """Values of an iteration that will be on the host."""

    def __init__(self, iteration: int, values: Tensor, use: Callable[[Tensor], None]) -> None:
        self.iteration = iteration
        self.values = values.detach().to("cpu", non_blocking=values.is_cuda)
        self.use = use
        self.event = torch.cuda.Event() if values.is_cuda else None
        if self.event is not None:
            self.event.record(torch.cuda.current_stream(values.device))

    def arrive(self) -> None:
        if self.event is not None:
            self.event.synchronize()  # has passed, where the host waited for anything since
        self.use(self.values)


def use_later(values: Tensor, use: Callable[[Tensor], None]) -> None:
    """
    Call ``use`` with the values on the host: at once if they are there, else when the next
    iteration of the event storage has some, or at :func:`use_now`; in the order of the calls.

    Raises:
        what the uses of earlier iterations raise.
    """
    storage = get_event_storage()
    queue = _queue(storage)
    queue.append(_OnItsWay(storage.iter, values, use))
    while queue and (queue[0].iteration < storage.iter or queue[0].event is None):
        queue.pop(0).arrive()


def use_now() -> None:
    """Wait for all values that are on their way, and use them."""
    queue = _queue(get_event_storage())
    while queue:
        queue.pop(0).arrive()


def put_scalars_later(scalars: dict[str, Tensor]) -> None:
    """Tell the event storage some scalars of this iteration; those that are NaN are left out."""
    storage = get_event_storage()
    iteration = storage.iter

    def put(values: Tensor) -> None:
        for name, value in zip(scalars, values.tolist(), strict=True):
            if not math.isnan(value):
                storage.put_scalar(name, value, cur_iter=iteration)

    use_later(torch.stack([value.float() for value in scalars.values()]), put)


def _queue(storage: EventStorage) -> list[_OnItsWay]:
    return vars(storage).setdefault("_values_on_their_way", [])
