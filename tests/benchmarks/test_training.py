import json
import subprocess
import sys

from tests.conftest import REPOSITORY
from tests.runs import CONFIG, SMALL, draw_four_images, own_set


def test_measures_loader_model_and_both(voc, tmp_path):
    draw_four_images(voc)
    path = tmp_path / "speed.json"
    command = [
        sys.executable, "benchmarks/training.py", "--config-file", CONFIG, "--workers", "0",
        "1", "--batches", "2", "--output", path, "--opts", *own_set(voc), *SMALL,
        "SOLVER.IMS_PER_BATCH", 2,
    ]  # fmt: skip
    done = subprocess.run(
        [str(c) for c in command], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "workers |" in done.stdout and "| mutual_guidance" in done.stdout
    result = json.loads(path.read_text())
    assert result["loader"].keys() == result["both"].keys() == {"0", "1"}
    for figures in result["step"].values():
        assert figures["images_per_second"] > 0 and figures["assignment_ms"] > 0
        assert 0 < figures["assignment_share"] < 1
