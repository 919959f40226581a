import pytest

from mutual_guidance.visualization.report.files import read_command

TRAINED = (
    "[11/26 00:49:06] detectron2 INFO: Command line arguments: "
    "Namespace(config_file='my set.yaml', resume=False, eval_only=False, num_gpus={gpus}, "
    "opts=['SOLVER.EPOCHS', '8.0'])"
)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log.txt"


def test_the_command_of_a_training(log):
    evaluated = TRAINED.replace("eval_only=False", "eval_only=True")
    resumed = TRAINED.replace("resume=False", "resume=True")
    begun = TRAINED.replace("8.0", "9.0")  # which left no checkpoint: else it could not begin anew
    lines = [text.format(gpus=1) for text in (evaluated, begun, TRAINED)]
    lines.append(resumed.format(gpus=2))
    log.write_text("\n".join(["before", *lines, "after"]))
    command = "python train_net.py --config-file 'my set.yaml' SOLVER.EPOCHS 8.0"
    assert read_command(log) == command
    log.write_text(TRAINED.format(gpus=2))
    assert read_command(log) == command.replace("yaml' ", "yaml' --num-gpus 2 ")
    log.write_text(resumed.format(gpus=1))
    assert read_command(log) == command


@pytest.mark.parametrize(
    "text", ["", "Command line arguments: Namespace(x", "Command line arguments: Namespace(f())"]
)
def test_a_log_without_one(log, text):
    log.write_text(text)
    assert read_command(log) == ""
