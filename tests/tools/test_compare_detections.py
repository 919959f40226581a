import json

import pytest
import torch
from detectron2.modeling import build_model

from mutual_guidance.config import load_config
from mutual_guidance.data import register_datasets
from tests.conftest import load_script
from tests.runs import CONFIG


@pytest.fixture
def compare(tmp_path):
    """The script, called with a command line."""
    module = load_script("tools/compare_detections.py")

    def call(*argv):
        options = ["--output", str(tmp_path / "comparison"), "--min-score", "0.01"]
        module.main([*map(str, argv), *options])

    return call


@pytest.fixture
def runs(voc, voc_entry, tmp_path):
    """Two runs of untrained models, as train_net.py leaves them."""
    for name in "abc":
        voc.add(name, [("red", (3, 5, 24, 40)), ("blue", (34, 34, 60, 58))])
    folders = [tmp_path / "first", tmp_path / "second"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        opts = ["MODEL.RETINANET.NUM_CLASSES", 3, "INPUT.SQUARE_SIZE", 64, "MODEL.DEVICE", "cpu"]
        # The second one has more false positives, and so they disagree.
        opts += ["TEST.DETECTIONS_PER_IMAGE", 3 + 4 * seed, "DATASETS.REGISTER", [voc_entry]]
        opts += ["DATASETS.TRAIN", (), "DATASETS.TEST", (voc_entry["name"],)]
        cfg = load_config(CONFIG, [*opts, "DATALOADER.NUM_WORKERS", 0])
        torch.manual_seed(seed)
        torch.save({"model": build_model(cfg).state_dict()}, folder / "model_final.pth")
        (folder / "config.yaml").write_text(cfg.dump())
    return folders


def test_worst_disagreements_first(compare, runs, tmp_path, capsys):
    compare(*runs, "--images", 2)
    entries = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert len(entries) == 2 and entries[0]["disagreement"] >= entries[1]["disagreement"] > 0
    assert all(e["image"].endswith(".jpg") for e in entries)
    assert [e["file"][:4] for e in entries] == ["000_", "001_"]
    assert all((tmp_path / "comparison" / e["file"]).stat().st_size > 5000 for e in entries)
    assert "2 of 3 images drawn" in capsys.readouterr().out
    compare(*runs, "--images", 1)  # the second picture of before is gone
    files = {path.name for path in (tmp_path / "comparison").iterdir()}
    assert files == {"comparison.json", entries[0]["file"]}


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", "torn"])
def test_a_comparison_of_something_else_is_left_alone(compare, runs, tmp_path, content):
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "comparison.json").write_text(content)
    with pytest.raises(SystemExit, match=r"error: .*comparison\.json is of something else"):
        compare(*runs)


def test_a_model_agrees_with_its_copy(compare, runs, tmp_path):
    copy = runs[0] / "model_0000004.pth"
    copy.write_bytes((runs[0] / "model_final.pth").read_bytes())
    compare(runs[0] / "model_final.pth", copy)
    entries = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert [e["disagreement"] for e in entries] == [0, 0, 0]


def test_errors_are_one_sentence(compare, runs, tmp_path):
    with pytest.raises(SystemExit, match="^error: .*nowhere has no config.yaml"):
        compare(runs[0], tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="^error: unknown data set 'other'"):
        compare(*runs, "--dataset", "other")
    weights = runs[1] / "model_final.pth"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(SystemExit, match=r"^error: .*model_final\.pth holds no weights"):
        compare(*runs)
    weights.unlink()
    with pytest.raises(SystemExit, match=r"^error: .*second has no checkpoint: train first"):
        compare(*runs)
    with pytest.raises(SystemExit, match=r"^error: .*there is no file .*none\.pth"):
        compare(runs[0], runs[1] / "none.pth")


def test_a_run_that_has_not_ended_on_another_machine(compare, runs, tmp_path):
    (runs[0] / "model_final.pth").rename(runs[0] / "model_0000009.pth")
    assert load_config(str(runs[0] / "config.yaml")).SOLVER.AMP.ENABLED
    compare(*runs)
    assert (tmp_path / "comparison" / "comparison.json").is_file()


def test_a_data_set_of_other_classes_is_refused(compare, runs, voc_entry):
    other = {**voc_entry, "name": voc_entry["name"] + "b", "classes": ["red", "blue", "green"]}
    register_datasets([other])
    with pytest.raises(
        SystemExit, match=r"^error: .*first was trained for other classes than those of"
    ):
        compare(*runs, "--dataset", other["name"])


def test_a_model_of_other_weights_is_refused(compare, runs):
    path = runs[1] / "model_final.pth"
    state = torch.load(path)
    name = next(n for n in state["model"] if n.startswith("head.") and n.endswith(".bias"))
    state["model"][name] = state["model"][name][:-1]
    torch.save(state, path)
    with pytest.raises(SystemExit, match=rf"^error: .*second/model_final\.pth.*{name}"):
        compare(*runs)
