import multiprocessing
import shutil
from collections import namedtuple
from contextlib import nullcontext

import pytest

from mutual_guidance.config import load_config
from mutual_guidance.engine import output
from mutual_guidance.engine.output import check_output, check_shared_memory
from mutual_guidance.errors import ConfigError, OutputError
from tests.runs import CONFIG


def hold(folder, held, release):
    """What another run does."""
    check_output(str(folder), is_new_run=True)
    held.set()
    release.wait()


def test_two_runs_in_one_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path, held, release))
    other.start()
    assert held.wait(60)
    with pytest.raises(OutputError, match="another run is writing to"):
        check_output(str(tmp_path), is_new_run=True)
    release.set()
    other.join()
    check_output(str(tmp_path), is_new_run=True)
    check_output(str(tmp_path), is_new_run=True)  # the same process may


def is_refused(folder):
    """Another run, which holds nothing."""
    output._locks.clear()
    with pytest.raises(OutputError, match="another run is writing to"):
        check_output(str(folder), is_new_run=True)


def test_a_folder_that_was_removed_is_made_and_held_anew(tmp_path):
    folder = tmp_path / "out"
    check_output(str(folder), is_new_run=True)
    shutil.rmtree(folder)
    check_output(str(folder), is_new_run=True)
    assert (folder / ".lock").is_file()
    context = multiprocessing.get_context("fork")
    other = context.Process(target=is_refused, args=(folder,))
    other.start()
    other.join(60)
    assert other.exitcode == 0


def test_a_new_run_does_not_mix_with_an_earlier_one(tmp_path):
    (tmp_path / "model_0000009.pth").touch()
    with pytest.raises(OutputError, match="add --resume to go on with it"):
        check_output(str(tmp_path), is_new_run=True)
    check_output(str(tmp_path), is_new_run=False)


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    (tmp_path / "model_0000009.pth.unfinished").touch()
    (tmp_path / "notes.tmp").touch()
    check_output(str(tmp_path), is_new_run=True)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "notes.tmp"}


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/run cannot be written to \(Not a directory\)"):
        check_output(str(tmp_path / "file" / "run"), is_new_run=True)


def test_a_name_that_detectron2_would_cut(tmp_path):
    with pytest.raises(OutputError, match=r"what\? has a question mark: choose a name without"):
        check_output(str(tmp_path / "what?"), is_new_run=True)


def test_read_only_folder(tmp_path, monkeypatch):
    def refuse(*args):  # what open does there, unless root asks
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OutputError, match=r"cannot be written to \(Permission denied\)"):
        check_output(str(tmp_path), is_new_run=True)


def test_too_little_shared_memory(monkeypatch):
    # 16 images of 3 x 64 x 64 bytes, 2 prefetched by 4 workers: 1.5 MiB
    opts = ["INPUT.SQUARE_SIZE", 64, "SOLVER.IMS_PER_BATCH", 16, "DATALOADER.NUM_WORKERS", 4]
    cfg = load_config(CONFIG, opts)
    monkeypatch.setattr("os.path.isdir", lambda path: True)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1 << 20))
    with pytest.raises(ConfigError, match="has 1 MiB free, .* or set DATALOADER.NUM_WORKERS 0"):
        check_shared_memory(cfg, is_training=True)
    check_shared_memory(cfg, is_training=False)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(2 << 20))
    check_shared_memory(cfg, is_training=True)
    # An evaluation has one image a batch; during one, those of the training wait.
    cfg.INPUT.SQUARE_SIZE, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = 0, (32,), 32
    needed = {False: 8 * 3 * 800 * 1333, True: 8 * 3 * (800 * 1333 + 16 * 32 * 32)}
    for is_training, size in needed.items():
        for free in (size, size - 1):
            monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: usage(free))
            with nullcontext() if free == size else pytest.raises(ConfigError, match="batches of"):
                check_shared_memory(cfg, is_training)
    cfg.DATALOADER.NUM_WORKERS = 0
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(0))
    check_shared_memory(cfg, is_training=True)
