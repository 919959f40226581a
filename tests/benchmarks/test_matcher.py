"""On a tiny scenario, in this process."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
import torch

from benchmarks import matcher, measure, peers, scenarios


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny scenarios, and cases measured in this process."""
    batch = scenarios._SSD._replace(
        num_images=2, size=(64, 64), num_objects=5, object_sides=(8, 40)
    )
    for module in (matcher, measure):
        monkeypatch.setattr(module, "SCENARIOS", {"voc": batch, "sweep_5": batch})
    monkeypatch.setattr(measure, "WARM_UP", batch)
    monkeypatch.setattr(measure, "in_process", lambda function, case, timeout: function(case))
    monkeypatch.setattr(measure, "map_large_blocks", lambda: None)  # stays for all later tests


@pytest.mark.usefixtures("tiny")
def test_writes_table_json_and_drawing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    absent = peers.Matcher(peers.plain, "a_package.that_is.not_there")
    monkeypatch.setitem(peers.MATCHERS, "absent", absent)
    matchers = [peers.OURS, "plain per image and object", "Detectron2 Matcher"]
    matchers += ["torchvision Matcher", "absent"]
    matcher.main(["--repeats", "2", "--output", str(tmp_path), "--matchers", *matchers])

    table = (tmp_path / "table.md").read_text()
    told = capsys.readouterr().out
    assert table in told and "voc: absent: not installed\n" in told.partition(table)[0]
    assert "| not installed |" in next(s for s in table.splitlines() if "absent" in s)
    report = json.loads((tmp_path / "results.json").read_text())
    rows = {(r["scenario"], r["matcher"]): r for r in report["results"]}
    assert len(rows) == 2 * len(matchers)
    assert rows["voc", "absent"]["status"] == "not installed"
    for name in matchers[:4]:
        row = rows["voc", name]
        assert row["status"] == "ok" and row["repeats"] == 2
        assert 0 < row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]
        # The ratio is the time over ours.
        assert row["ratio"] == row["median_ms"] / rows["voc", peers.OURS]["median_ms"]
    assert torch.__version__.startswith(report["machine"]["versions"]["torch"])
    assert report["scenarios"]["voc"]["num_objects"] == 5
    assert (tmp_path / "objects.png").stat().st_size > 0


@pytest.mark.usefixtures("tiny")
def test_a_folder_that_cannot_be_is_told_before_the_measurements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matcher, "measure", pytest.fail)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        matcher.main(["--output", str(tmp_path / "file")])


@pytest.mark.usefixtures("tiny")
def test_both_implementations_label_alike() -> None:
    batch = scenarios.make_batch(matcher.SCENARIOS["voc"], "cpu")
    case = peers.Case("voc", peers.OURS)
    for a, b in zip(peers.ours(batch, case)(), peers.plain(batch, case)(), strict=True):
        assert torch.equal(a, b)


def test_scenarios_are_those_of_the_issue() -> None:
    sizes = {name: (s.num_images, s.num_anchors) for name, s in scenarios.SCENARIOS.items()}
    assert sizes["voc"] == sizes["coco"] == (32, 12_750)
    assert sizes["dense"] == (128, 8_400)
    # (100 * 167 + 50 * 84 + 25 * 42 + 13 * 21 + 7 * 11) cells of 9 anchors
    assert sizes["large"] == sizes["large_crowded"] == (16, 200_700)
    for name in ("voc", "large"):
        levels = scenarios.make_anchors(scenarios.SCENARIOS[name])
        assert sum(len(level) for level in levels) == scenarios.SCENARIOS[name].num_anchors

    generator = torch.Generator().manual_seed(0)
    boxes = scenarios.make_objects(scenarios.SCENARIOS["dense"], generator)
    assert len(boxes) == 128 and len(boxes[0]) == 5_000
    assert sum(len(b) for b in boxes) == 75_000
    corners = torch.cat(boxes)
    assert (corners[:, 2:] > corners[:, :2]).all()
    assert corners.min() >= 0 and corners.max() <= 640


@pytest.mark.usefixtures("tiny")
def test_skips_what_needs_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2 images x 3 objects x 510 anchors, 16 bytes each; an image of it where nothing is padded
    name = "ultralytics TaskAlignedAssigner"
    assert matcher.SCENARIOS["voc"].num_anchors == 510
    assert peers.MATCHERS[name].needed_bytes(matcher.SCENARIOS["voc"]) == 2 * 3 * 510 * 16
    monkeypatch.setattr(measure, "available_bytes", lambda device: 48_000)
    assert measure.run_case(peers.Case("voc", name))["status"].startswith("skipped: needs over")
    assert measure.run_case(peers.Case("voc", "torchvision Matcher", repeats=1))["status"] == "ok"


def test_peak_of_the_process_counts_what_a_call_frees() -> None:
    # 20 million float32 are 80 MB.
    peak, result = measure.peak_bytes(lambda: torch.ones(20_000_000).sum(), "cpu")
    if peak is None:
        pytest.skip("the kernel does not let a process reset its peak")
    assert 70e6 < peak < 120e6 and result == 20_000_000


def _fail(argument: object) -> dict:
    raise RuntimeError("first line\nsecond line")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_case_that_dies_leaves_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "CONTEXT", multiprocessing.get_context("fork"))
    assert measure.in_process(dict, {"status": "ok"}, 60) == {"status": "ok"}
    assert measure.in_process(_fail, None, 60) == {"status": "failed: RuntimeError: first line"}
    assert "exit code 9" in measure.in_process(os._exit, 9, 60)["status"]
    assert measure.in_process(time.sleep, 60, 0.2) == {"status": "skipped: over 0.2 s"}
