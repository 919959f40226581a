import errno
import logging
import resource
import subprocess
import sys
import threading

import pytest

from mutual_guidance.engine.full_disk import mute_failing_logs, told
from mutual_guidance.errors import OutputError
from tests.conftest import REPOSITORY
from tests.runs import CONFIG, SMALL, draw_four_images, own_set


@pytest.fixture
def full_log():
    """A logger to a device that is always full."""
    logger = logging.getLogger("test_full_disk")
    logger.propagate = False
    stream = open("/dev/full", "a")  # noqa: SIM115
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)
    stream.close()  # its buffer, too, can be let go of


def test_a_log_that_cannot_be_written_is_told_once(full_log, capfd):
    mute_failing_logs("test_full_disk")
    for _ in range(5):
        full_log.warning("a line")
    said = capfd.readouterr().err
    assert said.count("/dev/full ends here") == 1 and "Traceback" not in said


def test_what_cannot_be_read_is_not_said_to_be_written():
    for path, what in (("run/log.txt", "written"), ("run2/a.json", "used")):
        expected = rf"^{path} cannot be {what}: Stale .*; mend that, then go on with --resume$"
        with pytest.raises(OutputError, match=expected), told("run"):
            raise OSError(errno.ESTALE, "Stale file handle", path)


def test_what_a_thread_and_a_writer_meet_is_one_sentence(capfd):
    def write():
        raise OSError(errno.ENOSPC, "No space left on device")

    with (
        pytest.raises(OutputError, match=r"^run cannot be written: No space .* --resume$"),
        told("run"),
    ):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
        write()
    assert capfd.readouterr().err == ""


def test_only_a_full_disk_needs_room():
    with pytest.raises(OutputError, match="Permission denied; mend that, then go on"), told("run"):
        raise OSError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
def test_processes_are_no_matter_of_the_folder(number):
    with pytest.raises(OutputError, match=r"lower DATALOADER\.NUM_WORKERS, then"), told("run"):
        raise OSError(number, "Resource temporarily unavailable")


def test_descriptors_are_no_matter_of_the_folder():
    with pytest.raises(OutputError, match=r"too many open files: raise the limit"), told("run"):
        raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.slow
@pytest.mark.parametrize("kib", [2, 12, 120])  # config.yaml, then logs and results, a checkpoint
def test_a_training_meets_a_full_disk(voc, tmp_path, kib):
    draw_four_images(voc)
    arguments = [
        "--config-file", CONFIG, *own_set(voc), *SMALL, "SOLVER.MAX_ITER", 12,
        "SOLVER.IMS_PER_BATCH", 2, "TEST.EVAL_PERIOD", 10, "OUTPUT_DIR", tmp_path / "out",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "train_net.py", *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (kib << 10, kib << 10)),
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 1 and said.count("error: ") == 1, said[-3000:]
    assert "cannot be written" in said and "Traceback" not in said
    for path in (tmp_path / "out").glob("evaluation*.json"):
        assert path.stat().st_size
