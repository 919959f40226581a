import ast
import errno
import json
import os
import re
import resource

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mutual_guidance.run_files import (
    checkpoint_files,
    flatten,
    iterations_done,
    read_metrics,
    read_results,
    replace_file,
    write_text,
)
from tests.conftest import REPOSITORY
from tests.runs import run_python

# Files that grow as they are written, or are of a machine's environment or the tools' own trials.
WRITTEN_OTHERWISE = {
    "run_files.py", "prediction/writers.py", "engine/output.py", "engine/setup.py",
    "engine/console.py", "experiments/runner.py",
    "env.py", "try_pages.py", "quickstart.py", "interruptions.py", "measure.py",
}  # fmt: skip


def test_results_are_written_whole():
    """No file of results is opened for writing but by replace_file."""
    package = REPOSITORY / "projects" / "MutualGuidance" / "mutual_guidance"
    found = [
        f"{path.relative_to(folder)}:{call.lineno}"
        for folder in (package, REPOSITORY / "tools", REPOSITORY / "benchmarks")
        for path in sorted(folder.rglob("*.py"))
        if path.relative_to(folder).as_posix() not in WRITTEN_OTHERWISE
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and writes(call)
    ]
    assert found == []


def writes(call: ast.Call) -> bool:
    """Whether a call opens a file for writing, or has a library do so by its path."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    values = [v.value for v in [*call.args, *(k.value for k in call.keywords)]
              if isinstance(v, ast.Constant)]  # fmt: skip
    if name == "open":
        return any(isinstance(v, str) and re.fullmatch("[wax]b?", v) for v in values)
    if name == "savefig":  # to an open file or buffer, which a name of one letter or word is
        return not (call.args and getattr(call.args[0], "id", "") in ("f", "data", "svg"))
    return name in ("write_bytes", "imwrite") or (
        name == "write_text" and isinstance(call.func, ast.Attribute)
    )


ROWS = [{"bbox/AP-{x}": i / 2, "iteration": i, "loss": 9.0 - i} for i in range(0, 60, 20)]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS)
KEPT = {row["iteration"]: {"bbox/AP-{x}": row["bbox/AP-{x}"], "loss": row["loss"]} for row in ROWS}


@given(st.integers(0, len(TEXT)))
def test_whatever_is_cut_off_whole_rows_count(tmp_path_factory, size):
    path = tmp_path_factory.getbasetemp() / "metrics.json"
    path.write_text(TEXT[:size])
    # A row is whole from its closing brace on, with or without the end of its line.
    written = [line for line in TEXT[:size].split("\n") if line]
    whole = sum(line in TEXT.splitlines() for line in written)
    assert read_metrics(path) == (dict(list(KEPT.items())[:whole]), len(written) - whole)
    assert iterations_done(path) == (20 * (whole - 1) + 1 if whole else 0)


@given(st.integers(0, len(TEXT)))
def test_a_resumed_run_writes_on_behind_a_torn_row(tmp_path_factory, size):
    path = tmp_path_factory.getbasetemp() / "metrics.json"
    path.write_text(TEXT[:size] + '{"iteration": 20, "loss": 1.5}\n{"iteration": 60, "loss": 1.0}')
    rows, _ = read_metrics(path)
    assert list(rows) == sorted(rows)
    assert rows[20]["loss"] == 1.5 and rows[60] == {"loss": 1.0}
    assert iterations_done(path) == 61


@pytest.mark.parametrize(
    "line", ["[1]", "3", "{}", '{"loss": 1.0}', '{"iteration": 1e999}', '{"iteration": 1, "a": []}']
)
def test_alien_lines_count_as_torn(tmp_path, line):
    path = tmp_path / "metrics.json"
    path.write_text(f"{line}\n{TEXT}")
    assert read_metrics(path) == (KEPT, 1)


def test_iterations_done_reads_the_end_alone(tmp_path):
    path = tmp_path / "metrics.json"
    assert iterations_done(path) == 0
    path.write_text("".join(f'{{"iteration": {i}, "loss": 0.125}}\n' for i in range(5000)))
    assert iterations_done(path) == 5000


def test_iterations_done_where_the_last_row_is_long(tmp_path):
    path = tmp_path / "metrics.json"
    metrics = {f"bbox/AP-class {i}": 12.345678 for i in range(1000)}
    path.write_text(TEXT + json.dumps({**metrics, "iteration": 79}))
    assert iterations_done(path) == 80


def test_a_file_system_that_cannot_keep_names_of_files(tmp_path, monkeypatch):
    real = os.fsync

    def refuse(descriptor):
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    write_text(tmp_path / "a", "whole")
    assert (tmp_path / "a").read_text() == "whole"


@pytest.mark.parametrize("name", ["a" * 251, "字" * 83])
def test_a_name_as_long_as_names_may_be_is_written(tmp_path, name):
    path = tmp_path / f"{name}.jpg"
    replace_file(path, lambda f: f.write(b"whole"))
    assert path.read_bytes() == b"whole"


def test_results(tmp_path):
    path = tmp_path / "evaluation.json"
    results = {"x": {"bbox": {"AP": 20.5, "AP-ring": None}, "misalignment": {"found": 1}}}
    path.write_text(json.dumps(results))
    assert read_results(path) == results


@pytest.mark.parametrize(
    "text",
    ['{"x"', "[]", "{}", '{"x": {}}', '{"x": {"bbox": 3}}', '{"x": {"bbox": {"AP": "<b>"}}}'],
)
def test_other_results_are_refused(tmp_path, text):
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(ValueError):
        read_results(path)


def test_crash_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write(f):
        f.write(b"ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_file(str(path), write)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("kib", [0, 9, 90, 107])  # of 107.4
def test_a_full_disk_is_the_systems_error_whatever_writes(tmp_path, kib):
    path = tmp_path / "file"
    data = [torch.zeros(n) for n in (10, 20_000, 7_000)]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, limits[1]))
    try:
        with pytest.raises(OSError, match=f"too large: '{path}'"):
            replace_file(path, lambda f: torch.save(data, f))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_what_is_no_error_of_the_system_stays_so_while_one_is_told(tmp_path, error):
    def write(f):
        raise error

    with pytest.raises(error):
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            replace_file(tmp_path / "results.json", write)
    assert not [*tmp_path.iterdir()]


def test_checkpoints_begin_with_the_end_and_count_numerically(tmp_path):
    for name in ("model_9999999", "model_10000000", "model_ema_final", "model_final", "other"):
        (tmp_path / f"{name}.pth").touch()
    names = [path.rsplit("/", 1)[1] for path in checkpoint_files(str(tmp_path))]
    assert names == ["model_final.pth", "model_10000000.pth", "model_9999999.pth"]


def test_nested_keys_become_dotted_ones():
    assert flatten({"A": {"B": {"C": [1]}, "D": {}}, "E": 2}) == {"A.B.C": [1], "E": 2}


LIGHT = "arguments", "errors", "machine", "run_files", "experiments.report", "experiments.plots"


def test_what_only_formats_results_does_not_wait_for_pytorch():
    modules = ", ".join(f"mutual_guidance.{name}" for name in LIGHT)
    code = f"import sys, {modules}; print({{'torch', 'detectron2'}} & sys.modules.keys())"
    assert run_python(code).stdout == "set()\n"
