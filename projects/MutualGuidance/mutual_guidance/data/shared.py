"""What takes long and is the same for all processes of a machine."""

from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch.distributed as dist
from detectron2.utils import comm

from ..errors import UserError

Result = TypeVar("Result")
# The headers of a large data set on a cold network folder take more than NCCL's 10 minutes, and
# more than the half hour of Detectron2's own groups.
_PATIENCE = timedelta(days=1)


def once_a_machine(make: Callable[[], Result]) -> Result:
    """
    What ``make()`` returns in the first process of this machine, which alone calls it. All
    processes must call this.

    Raises:
        UserError: that of ``make`` on the first machine that has one, in all processes.
    """
    if comm.get_world_size() == 1:
        return make()
    outcome: list[Result | UserError | None] = [None]
    if comm.get_local_rank() == 0:
        try:
            outcome = [make()]
        except UserError as error:
            outcome = [error]
    if comm.get_local_size() > 1:
        first = comm.get_rank() - comm.get_local_rank()
        dist.broadcast_object_list(outcome, first, machine_group())
    raise_together(outcome[0] if isinstance(outcome[0], UserError) else None)
    return outcome[0]


def raise_together(error: UserError | None) -> None:
    """Raise the first of the errors that the processes have. All must call this."""
    for first in filter(None, of_all_processes(error)):
        raise first


def of_all_processes(value: Result) -> list[Result]:
    """The values of the processes, by rank. All must call this, however long one takes to."""
    values = [value] * comm.get_world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value, machine_group(of_all=True))
    return values


@cache
def machine_group(of_all: bool = False) -> dist.ProcessGroup:
    """
    Join the processes of this machine, or all of them, over gloo, not NCCL. All processes must call
    this.
    """
    rank, world_size = comm.get_rank(), comm.get_world_size()
    size = world_size if of_all else comm.get_local_size()
    groups = [
        dist.new_group(range(first, first + size), timeout=_PATIENCE, backend="gloo")
        for first in range(0, world_size, size)
    ]
    return groups[rank // size]
