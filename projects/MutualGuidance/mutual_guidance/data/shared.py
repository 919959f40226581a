"""What takes long and is the same for all processes of a machine."""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch.distributed as dist
from detectron2.utils import comm

from ..errors import UserError

Result = TypeVar("Result")
# The headers of a large data set on a cold network folder take more than NCCL's 10 minutes.
_PATIENCE = timedelta(days=1)


def once_a_machine(make: Callable[[], Result]) -> Result:
    """
    What ``make()`` returns in the first process of this machine, which alone calls it. All
    processes must call this.

    Raises:
        UserError: that of ``make``, in all processes.
    """
    if comm.get_local_size() == 1:
        return make()
    outcome: list[Result | UserError | None] = [None]
    if comm.get_local_rank() == 0:
        try:
            outcome = [make()]
        except UserError as error:
            outcome = [error]
    first = comm.get_rank() - comm.get_local_rank()
    dist.broadcast_object_list(outcome, first, machine_group())
    if isinstance(outcome[0], UserError):
        raise outcome[0]
    return outcome[0]


@cache
def machine_group() -> dist.ProcessGroup:
    """Join the processes of this machine over gloo, not NCCL. All processes must call this."""
    if dist.get_backend() != "nccl":
        return comm.get_local_process_group()
    size, rank = comm.get_local_size(), comm.get_rank()
    groups = [
        dist.new_group(range(first, first + size), timeout=_PATIENCE, backend="gloo")
        for first in range(0, comm.get_world_size(), size)
    ]
    return groups[rank // size]
