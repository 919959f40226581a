import json

import numpy as np
import pytest
from PIL import Image

from mutual_guidance.engine import load_config
from mutual_guidance.evaluation.misalignment import summarize
from tests.conftest import REPOSITORY

CONFIG = str(REPOSITORY / "configs" / "Shapes" / "retinanet_R_18.yaml")
NASTY = "<script>document.title='harmed'</script>"


def write_run(folder, strategy="static", ap=20.0, dataset="shapes_test"):
    """What a run leaves in its output folder, small."""
    (folder / "misalignment").mkdir(parents=True)
    cfg = load_config(CONFIG, ["MODEL.MUTUAL_GUIDANCE.STRATEGY", strategy])
    (folder / "config.yaml").write_text(cfg.dump())
    lines = [
        {"iteration": i, "total_loss": 3 - i / 100, "bbox/AP": i / 10, "bbox/AP-ring": i / 10}
        for i in range(0, 100, 20)
    ]
    (folder / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    metrics = {"AP": ap, "AP50": 40.0, "APs": None, "AP-ring": 10.0, f"AP-{NASTY}": 30.0}
    (folder / "evaluation.json").write_text(json.dumps({dataset: {"bbox": metrics}}))
    ious = np.linspace(0.4, 0.9, 20)
    measured = {f"{m}_{s}": ious for m in ("top_iou", "best_iou") for s in ("before", "after")}
    measured |= {f"rank_correlation_{s}": ious - 0.5 for s in ("before", "after")}
    details = summarize(dataset, measured | {"suppressed": (ious > 0.8).astype(float)})
    (folder / "misalignment" / f"{dataset}.json").write_text(json.dumps(details))
    pictures = folder / "visualization" / "assignments"
    (pictures / "000001").mkdir(parents=True)
    counts = []
    for iteration in (0, 50, 100):
        file = f"000001/{iteration:07d}.png"
        Image.new("RGB", (60, 40), (iteration, 100, 0)).save(pictures / file)
        entry = {"iteration": iteration, "image": "000001", "file": file}
        counts.append(entry | {"counts": {"only_static": iteration + 7}})
    (pictures / "counts.jsonl").write_text("\n".join(map(json.dumps, counts)))
    return folder


def write_comparison(folder):
    """What tools/compare_detections.py writes."""
    folder.mkdir()
    Image.new("RGB", (900, 300), (0, 0, 200)).save(folder / "000_a.png")
    entry = {"image": f"images/{NASTY.replace('/', '')}.jpg", "file": "000_a.png"}
    (folder / "comparison.json").write_text(json.dumps([entry | {"disagreement": 1.25}]))
    return folder


@pytest.fixture
def run_folder(tmp_path):
    return write_run(tmp_path / "static")
