"""
Pickles of strangers: what is in them is built by the constructors here and by nothing else, so that
a file can neither call anything nor give NumPy memory that is not an array's.
"""

import math
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np

from .errors import CheckpointError

_NUMBERS = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])
# What protocols 2 to 5 write for containers, strings, numbers and calls of constructors.
_OPCODES = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 "
    "BINFLOAT BINUNICODE SHORT_BINUNICODE BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES "
    "BINBYTES8 BYTEARRAY8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS "
    "EMPTY_DICT BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE"
)


class Reader(pickle._Unpickler):
    """
    Python's own unpickler in Python, since that in C trusts the sizes that a file names, without
    what weights do not need.
    """

    dispatch = {
        op: pickle._Unpickler.dispatch[op]
        for op in (getattr(pickle, name)[0] for name in _OPCODES.split())
    }

    def __init__(self, f: IO[bytes], constructors: Mapping[tuple[str, str], Any]) -> None:
        """
        Args:
            f: the pickle. constructors: by module and name.
        """
        super().__init__(f, encoding="latin1")
        self.constructors = constructors

    def find_class(self, module: str, name: str) -> Any:
        """Raises UnpicklingError for what is not among the constructors."""
        if (module, name) not in self.constructors:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in weights")
        return self.constructors[module, name]

    def _build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], _DType | _Array):
            self.stack[-1].set_state(*state)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _set_marked_items(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):  # the hash of nested tuples may never end
                raise pickle.UnpicklingError("a key that is neither a name nor a number")
            self.stack[-1][key] = value

    dispatch[pickle.BUILD[0]] = _build
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.SETITEMS[0]] = _set_marked_items


class _DType:
    """Of numbers alone."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        if code not in _NUMBERS:
            raise pickle.UnpicklingError(f"arrays of {code!r} are no weights")
        self.value = np.dtype(code)

    def set_state(self, version: int, order: str, *fields: Any) -> None:
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"there is no byte order {order!r}")
        self.value = self.value.newbyteorder(order)


class _Array:
    """Its value, once its state has come."""

    value: np.ndarray | None = None

    def __init__(self, *ignored: Any) -> None:
        pass

    def set_state(
        self, version: int, shape: tuple, dtype: _DType, is_fortran: bool, data: bytes | str
    ) -> None:
        # Python 2 wrote the bytes as a string.
        data = data.encode("latin1") if isinstance(data, str) else data
        self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: bytes, dtype: _DType, shape: tuple, order: str) -> np.ndarray:
    """A copy of the data, in the machine's byte order."""
    if not all(type(side) is int and side >= 0 for side in shape):
        raise pickle.UnpicklingError(f"there is no array of shape {shape}")
    if math.prod(shape) * dtype.value.itemsize != len(data):
        raise pickle.UnpicklingError(f"{len(data)} bytes are no array of shape {shape}")
    array = np.frombuffer(data, dtype.value).reshape(shape, order=order)
    return array.astype(dtype.value.newbyteorder("="))


def _buffered(data: bytes, dtype: _DType, shape: tuple, order: str) -> _Array:
    array = _Array()
    array.value = _array(data, dtype, shape, order)
    return array


def _scalar(dtype: _DType, data: bytes | str) -> _Array:
    array = _Array()
    array.set_state(1, (), dtype, False, data)
    return array


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as protocol 2 writes them."""
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """As protocol 2 writes them where there are none."""
    return b""


_CONSTRUCTORS: dict[tuple[str, str], Callable | None] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): None,
    **{
        (f"numpy.{core}.{module}", name): constructor
        for core in ("core", "_core")
        for module, name, constructor in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _buffered),
        )
    },
}


def load_pickled_arrays(path: str) -> dict[str, Any]:
    """
    Weights of Detectron2's model zoo, a pickle of NumPy arrays by name, or of Detectron1 and its
    ImageNet models, as MSRA's ResNet-50, of whose names Detectron2 then makes its own.

    Returns:
        "model", the arrays by name, and "__author__" and "matching_heuristics" where it has them.

    Raises:
        CheckpointError: anything else is in it; nothing of it is executed.
    """
    try:
        with open(path, "rb") as f:
            data = Reader(f, _CONSTRUCTORS).load()
        if not isinstance(data, dict):
            raise pickle.UnpicklingError("no dictionary")
        if isinstance(data.get("model"), dict):
            rest = {"__author__": str, "matching_heuristics": bool}
            kept = {k: data[k] for k, kind in rest.items() if isinstance(data.get(k), kind)}
            return {"model": _arrays(data["model"]), **kept}
        model = _arrays(data["blobs"] if isinstance(data.get("blobs"), dict) else data)
    except Exception as error:  # of a file that is no such pickle, any
        reason = error if isinstance(error, pickle.UnpicklingError) else "it is torn or no pickle"
        raise CheckpointError(f"{path} is not of Detectron2's model zoo: {reason}") from error
    model = {name: value for name, value in model.items() if not name.endswith("_momentum")}
    return {"model": model, "__author__": "Caffe2", "matching_heuristics": True}


def _arrays(values: dict) -> dict[str, np.ndarray]:
    if not values:
        raise pickle.UnpicklingError("no weights in it")
    return {name: _unwrapped(name, value) for name, value in values.items()}


def _unwrapped(name: object, value: object) -> np.ndarray:
    if not isinstance(name, str) or not isinstance(value, _Array) or value.value is None:
        raise pickle.UnpicklingError(f"{name!r} is no array")
    return value.value
