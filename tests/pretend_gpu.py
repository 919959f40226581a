"""
A GPU that is none: tensors that say ``cuda:0`` and compute on the CPU.

In the ``pretend_gpu`` fixture everything that goes to ``cuda:0`` becomes a :class:`PretendTensor`
around a tensor of the CPU, and every operator passes through :class:`PretendGPU`, which

- refuses, as a GPU does, an operator that mixes both kinds, and beyond it what PyTorch would copy
  in silence (an index from the host); a plain tensor without dimensions may join, as on a GPU;
- notes for what the host would wait, in ``waits``: values and sizes that it reads, copies in both
  directions that are not asynchronous;
- notes the operators in ``operators``, but those that only look at memory in another way;
- lets a copy to the host that nobody waits for arrive at the next wait, no sooner: until then the
  host's tensor holds -1.

The autograd engine must stay in this thread, which the fixture sees to. C++ code is told that the
device is ``meta``, for which it has no streams to ask for.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("cuda", 0)
aten = torch.ops.aten

# Operators whose result has a size, or is a value, that the host must learn from the device.
_READING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "equal", "bincount", "histc", "nms",
}  # fmt: skip
_WRITING = {"index_put", "index_put_", "_index_put_impl_"}
_COPYING = {"_to_copy", "copy_"}
# What autocast computes in half precision, and what in float32, of what a detector uses.
_HALF = {"conv2d", "linear", "matmul", "mm", "addmm", "bmm"}
_FLOAT = {
    "exp", "log", "log1p", "pow", "softplus", "sum", "cumsum", "group_norm", "layer_norm",
    "binary_cross_entropy_with_logits", "smooth_l1_loss",
}  # fmt: skip
# What a copy from memory that is not pinned may have in bytes, and still not wait.
_STAGED = 2**16


class PretendTensor(Tensor):
    """Says that it is on ``cuda:0``; ``host`` has the values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def around(host: Tensor) -> "PretendTensor":
        # Sizes, strides and offset for PyTorch's views, without memory.
        size = 1 + sum((n - 1) * s for n, s in zip(host.shape, host.stride(), strict=True))
        whole = torch.empty(host.storage_offset() + max(size, 0), dtype=host.dtype, device="meta")
        twin = whole.as_strided(host.shape, host.stride(), host.storage_offset())
        tensor = Tensor._make_subclass(
            PretendTensor, twin, dispatch_device=True, device_for_backend_keys=DEVICE
        )
        tensor.host = host
        return tensor

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    @property
    def is_meta(self) -> bool:
        return False

    def tolist(self):
        _active().wait("tolist")
        return self.host.tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def __reduce_ex__(self, protocol):
        return self.cpu().__reduce_ex__(protocol)

    def __repr__(self, **_):
        return f"pretend {self.host!r}"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func is torch.ops.prim.device.default:
            return torch.device("meta")
        raise RuntimeError(f"{func} of a pretended tensor outside of pretend_gpu")


class PretendGPU(TorchDispatchMode):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.operators: list[str] = []
        self._pinned: list[Tensor] = []
        # Asynchronous copies to the host (there, what will arrive) and records of events (None).
        self._queue: list[tuple[Tensor, Tensor] | None] = []
        self._done = 0

    def record(self) -> int:
        """The place in the queue up to which an event recorded now waits."""
        self._queue.append(None)
        return len(self._queue)

    def has_done(self, place: int) -> bool:
        """Whether there was a wait since the record of that place."""
        return self._done >= place

    def reset(self) -> None:
        """Forget what was noted."""
        self.waits.clear()
        self.operators.clear()

    def wait(self, reason: str, place: int | None = None) -> None:
        """Note a wait, after which the copies before that place (default: all) have arrived."""
        self.waits.append(reason)
        place = len(self._queue) if place is None else place
        for there, values in filter(None, self._queue[self._done : place]):
            there.copy_(values)
        self._done = max(self._done, place)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return torch.device("meta")
        name = func.overloadpacket.__name__
        if name in ("_pin_memory", "is_pinned"):
            return self._pin(args[0]) if name == "_pin_memory" else self._is_pinned(args[0])
        leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        pretended = [x for x in leaves if isinstance(x, PretendTensor)]
        target = kwargs.get("device")
        on_gpu = bool(pretended) if target is None else torch.device(target).type != "cpu"
        if not pretended and not on_gpu:
            return func(*args, **kwargs)
        self._check(name, leaves, pretended, args, kwargs)
        returned = func._schema.returns[0].alias_info if func._schema.returns else None
        if returned is None or returned.is_write:
            self.operators.append(name)
        if target is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        if name in _COPYING:
            return self._copy(func, args, kwargs, on_gpu)
        self._note_reading(name, args, kwargs)
        return self._run(func, args, kwargs, pretended, on_gpu)

    def _check(self, name: str, leaves: list, pretended: list, args: tuple, kwargs: dict) -> None:
        mixed = pretended and any(x.dim() > 0 for x in leaves if not isinstance(x, PretendTensor))
        if mixed and name not in _COPYING:
            shapes = [f"{x.device}{tuple(x.shape)}" for x in leaves]
            raise RuntimeError(f"{name} mixes devices: {', '.join(shapes)}")

    def _run(self, func: Callable, args, kwargs, pretended: list, on_gpu: bool) -> Any:
        """The operator on the wrapped tensors, its results wrapped; in place where it is."""
        known = {id(x.host): x for x in pretended}
        host_args, host_kwargs = tree_map_only(PretendTensor, lambda x: x.host, (args, kwargs))
        result = func(*host_args, **host_kwargs)
        if torch.Tag.inplace_view in func.tags:
            with no_dispatch():  # the twin's sizes follow
                func(*args, **kwargs)
        if not on_gpu:
            return result
        return tree_map_only(
            Tensor, lambda x: known[id(x)] if id(x) in known else PretendTensor.around(x), result
        )

    def _note_reading(self, name: str, args: tuple, kwargs: dict) -> None:
        sized = name == "repeat_interleave" and kwargs.get("output_size") is None
        indexed = name == "index" or (name in _WRITING and not _fills(args))
        if name in _READING or sized:
            self.wait(name)
        elif indexed and any(i is not None and i.dtype == torch.bool for i in args[1]):
            self.wait(f"{name} by a mask")

    def _copy(self, func: Callable, args: tuple, kwargs: dict, on_gpu: bool) -> Tensor:
        """``_to_copy`` and ``copy_``, within a device or from one to the other."""
        source = args[1] if func.overloadpacket is aten.copy_ else args[0]
        if func.overloadpacket is aten.copy_:
            on_gpu = isinstance(args[0], PretendTensor)
        asynchronous = kwargs.get("non_blocking") or args[2:3] == (True,)
        pretended = [x for x in args if isinstance(x, PretendTensor)]
        to_host = isinstance(source, PretendTensor) and not on_gpu
        to_gpu = not isinstance(source, PretendTensor) and on_gpu
        if to_gpu and not (asynchronous and self._may_upload(source)):
            self.wait("copy to the device")
        result = self._run(func, args, kwargs, pretended, on_gpu)
        if to_host and asynchronous:
            self._queue.append((result, result.clone()))
            result.fill_(-1)
        elif to_host:
            self.wait("copy to the host")
        return result

    def _may_upload(self, source: Tensor) -> bool:
        size = source.numel() * source.element_size()
        return size <= _STAGED or self._is_pinned(source)

    def _pin(self, tensor: Tensor) -> Tensor:
        self._pinned.append(tensor.clone())
        return self._pinned[-1]

    def _is_pinned(self, tensor: Tensor) -> bool:
        return any(tensor is x for x in self._pinned)


class _Autocast(TorchFunctionMode):
    """torch.autocast("cuda"), which passes over tensors whose C++ part says ``meta``."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, dtype = getattr(func, "__name__", ""), None
        if torch.is_autocast_enabled("cuda") and (name in _HALF or name in _FLOAT):
            dtype = torch.get_autocast_dtype("cuda") if name in _HALF else torch.float32
            args, kwargs = tree_map_only(
                PretendTensor, lambda x: x.to(dtype) if x.is_floating_point() else x, (args, kwargs)
            )
        return func(*args, **(kwargs or {}))


class PretendEvent:
    """torch.cuda.Event: to synchronize is a wait, unless there was another since its record."""

    def __init__(self, **_: Any) -> None:
        self._place = 0

    def record(self, stream: Any = None) -> None:
        self._place = _active().record()

    def query(self) -> bool:
        return _active().has_done(self._place)

    def synchronize(self) -> None:
        if not self.query():
            _active().wait("event", self._place)


def _fills(args: tuple) -> bool:
    """Whether an index_put is a masked_fill, as PyTorch turns it into one."""
    return args[2].numel() == 1 and args[3:4] != (True,)


_devices: list[PretendGPU] = []


def _active() -> PretendGPU:
    return _devices[-1]


@contextlib.contextmanager
def pretend_gpu(capability: tuple[int, int] = (8, 0)) -> Iterator[PretendGPU]:
    """``cuda:0`` is pretended; Module.to makes new parameters, since theirs cannot change kind."""
    device = PretendGPU()
    calls = {
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "current_stream": lambda *_: None,
        "get_device_name": lambda *_: "a pretended GPU",
        "get_arch_list": lambda: ["sm_75", "sm_80", "sm_90a", "compute_90"],
        "get_device_capability": lambda *_: capability,
        "is_bf16_supported": lambda *_: capability >= (8, 0),
        "max_memory_allocated": lambda *_: 0,
        "set_device": lambda *_: None,
        "synchronize": lambda *_: device.wait("synchronize"),
        "Event": PretendEvent,
    }
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    lift_only = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor copies where the mode sees it
    _devices.append(device)
    try:
        with (
            mock.patch.multiple(torch.cuda, **calls),
            torch.autograd.set_multithreading_enabled(False),
            _Autocast(),
            device,
        ):
            yield device
    finally:
        _devices.pop()
        torch._C._set_only_lift_cpu_tensors(lift_only)
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
