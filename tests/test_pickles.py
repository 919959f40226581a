"""Pickles that attack whoever reads them."""

import pickle
import random
import signal

import numpy as np
import pytest

from mutual_guidance.errors import CheckpointError
from mutual_guidance.pickles import load_pickled_arrays

ARRAYS = {
    "float": np.arange(6, dtype="f4").reshape(2, 3),
    "half": np.ones(3, "f2"),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(3, dtype=">i4"),
    "flags": np.array([True, False]),
    "scalar": np.float64(2.5),
    "empty": np.zeros((0, 3)),
}
ZOO = {"model": ARRAYS, "__author__": "Detectron2", "matching_heuristics": True}


def load(tmp_path, data):
    path = tmp_path / "zoo.pkl"
    path.write_bytes(data)
    return load_pickled_arrays(str(path))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_as_they_were(tmp_path, protocol):
    data = load(tmp_path, pickle.dumps(ZOO, protocol))
    assert data["__author__"] == "Detectron2" and data["matching_heuristics"] is True
    assert data["model"].keys() == ARRAYS.keys()
    for name, array in data["model"].items():
        np.testing.assert_array_equal(array, ARRAYS[name])
        assert array.dtype.isnative and array.flags.writeable and array.dtype.kind in "fib"


def test_arrays_of_python_2(tmp_path):
    """Bytes as strings of latin1, as in Detectron2's oldest files."""
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff\x4b\x00K\x00tb"
    state = b"(K\x01K\x01\x85" + dtype + b"\x89U\x04\x00\x00\x80\x3ftb"
    data = b"\x80\x02}U\x05model}U\x01a" + reconstruct + state + b"ss."
    assert load(tmp_path, data)["model"]["a"].tolist() == [1.0]


class Reduced:
    """Pickled as a call with a state."""

    def __init__(self, *value):
        self.value = value

    def __reduce__(self):
        return self.value


RECONSTRUCT, NDARRAY = np.zeros(1).__reduce__()[0], np.ndarray
OBJECTS = (1, (1,), np.dtype("O"), False, b"\x41" * 8)  # a pointer of the stranger's choice
FIELDS = Reduced(np.dtype, ("f4", False, True), (3, "<", None, ("x",), {"x": ("O", 0)}, 8, 8, 0))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Reduced(RECONSTRUCT, (NDARRAY, (0,), b"b"), OBJECTS), "arrays of 'O8' are no weights"),
        (Reduced(RECONSTRUCT, (NDARRAY, (0,), b"b"), (1, (9,), np.dtype("f4"), False, b"1234")),
         r"4 bytes are no array of shape \(9,\)"),
        (Reduced(RECONSTRUCT, (NDARRAY, (0,), b"b"), (1, (-1,), np.dtype("f4"), False, b"1234")),
         r"no array of shape \(-1,\)"),
        (Reduced(RECONSTRUCT, (NDARRAY, (0,), b"b")), "'a' is no array"),
        (Reduced(print, ("called",)), "__builtin__.print is not allowed"),
        (np.array(["text"]), "arrays of 'U4' are no weights"),
        ("text", "'a' is no array"),
    ],
    ids=["objects", "beyond", "negative", "unbuilt", "call", "strings", "text"],
)  # fmt: skip
def test_what_is_no_array_of_numbers_is_refused(tmp_path, value, reason, capsys):
    with pytest.raises(CheckpointError, match=reason):
        load(tmp_path, pickle.dumps({"model": {"a": value}}, 2))
    assert not capsys.readouterr().out


@pytest.mark.parametrize("data", [{}, {"blobs": {}}, {"model": {}}])
def test_a_file_without_weights_is_refused(tmp_path, data):
    with pytest.raises(CheckpointError, match="is not of Detectron2's model zoo: no weights in it"):
        load(tmp_path, pickle.dumps(data))


def test_the_layout_of_a_dtype_is_not_the_strangers(tmp_path):
    array = Reduced(RECONSTRUCT, (NDARRAY, (0,), b"b"), (1, (2,), FIELDS, False, b"\x41" * 8))
    loaded = load(tmp_path, pickle.dumps({"model": {"a": array}}, 2))["model"]["a"]
    assert loaded.dtype == np.float32


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02N" + b"2\x86" * 60 + b"}" + b"N" * 2 + b"s.",  # 2**60 pairs
        b"\x80\x02}N" + b"2\x86" * 60 + b"Ns.",  # as a key, whose hash would take as many steps
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # the memo's two thousand millionth place
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",  # bytes without end
        b"\x80\x02" + b"(" * 100_000 + b".",
    ],
)
def test_small_files_that_ask_for_much_are_refused_at_once(tmp_path, data):
    # Of the processor's time, after which the process ends: no handler interrupts an unpickler.
    signal.setitimer(signal.ITIMER_PROF, 30)
    try:
        with pytest.raises(CheckpointError, match="is not of Detectron2's model zoo"):
            load(tmp_path, data)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def test_whatever_is_changed_in_a_file_it_loads_or_ends_in_one_sentence(tmp_path):
    rng = random.Random(0)
    whole, loaded = pickle.dumps(ZOO, 2), 0
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            place, length = rng.randrange(len(data)), rng.randint(0, 3)
            data[place : place + length] = rng.randbytes(rng.randint(0, 3))
        try:
            arrays = load(tmp_path, bytes(data))["model"]
        except CheckpointError as error:
            assert str(error).startswith(f"{tmp_path}/zoo.pkl is not of Detectron2's model zoo: ")
        else:
            loaded += 1
            assert all(array.dtype.kind in "fiub" for array in arrays.values())
    assert 0 < loaded < 1000
