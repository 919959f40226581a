"""The small inputs that once went wrong (see their README), and what is right for each."""

import os
import re
from pathlib import Path

import pytest
import yaml
from detectron2.data import MetadataCatalog

from mutual_guidance.config import load_config
from mutual_guidance.data import check_datasets, records_of, register_datasets
from mutual_guidance.engine.setup import resolve_classes
from mutual_guidance.errors import ConfigError, DatasetError
from tests.conftest import REPOSITORY
from tests.evaluation.perfect import perfect_metrics

# Read: the classes, and what is told of it.
READ = {
    "00-control": (["cat"], ""),
    "01-coco-no-area-iscrowd": (["cat"], ""),
    "02-coco-two-point-polygon": (["cat"], ""),
    "04-coco-roboflow-root-category": (["cat", "dog"], "only the parent of others.*'animals'"),
    "08-coco-null-iscrowd-area": (["cat"], ""),
    "08c-coco-iscrowd-text-false": (["cat"], ""),
    "11-coco-144-objects-an-image": (["cat"], ""),
    "13-coco-flat-polygon": (["cat"], ""),
    "13c-coco-segmentation-empty-dict-bad-rle": (["cat"], ""),
    "16-coco-bom": (["cat"], ""),
    "25b-coco-annotation-ids-text": (["cat"], ""),
    "26-coco-category-name-number": (["7"], ""),
    "30-voc-names-with-spaces": (["cat", "dog"], ""),
    "31-voc-class-name-spaces": (["Cat", "cat"], "only in capitals, spaces .*'Cat', 'cat'"),
    "33b-voc-split-bom": (["cat", "dog"], ""),
    "44-voc-bmp": (["cat", "dog"], ""),
    "56-voc-ids-in-subfolder-png": (["cat"], ""),
    "60-yolo-names-text": (["person"], ""),
    "61-yolo-images-txt": (["cat", "dog"], ""),
    "63-yolo-polygon": (["cat", "dog"], ""),
    "67-yolo-bmp-only": (["cat", "dog"], ""),
}
# Refused: what the sentence or table says.
REFUSED = {
    "03b-coco-string-category-id-in-annotations": '"category_id" is the id of no category.*: "1"',
    "05-coco-backslash": "its name has a backslash",
    "05e-coco-nfc-nfd": "another Unicode form",
    "07-coco-exif-unrotated-size": "EXIF turns this image.*image 80x100, annotation 100x80",
    "09-coco-all-crowd": "no usable object: nothing to learn",
    "16b-coco-no-annotations-key": r"a\.json is not COCO's JSON: its key 'annotations' is missing",
    "27-coco-size-as-text": '"width" is no number of pixels in images .*: "100"',
    "34-voc-size-missing": r"tag <size> of <annotation> is missing .*a\.xml",
    "37-voc-two-bndbox": r"tag <bndbox> of <object> stands there 2 times .*a\.xml: line 1",
    "39-voc-namespace": r"tag <size> is missing: .* namespace .*a\.xml",
    "42-voc-robndbox": r"tag <robndbox> is not read .*a\.xml: line 1",
    "43-voc-objects-wrapped": r"tag <object> is not read .*a\.xml: line 1",
    "45-voc-two-images-of-a-stem": r"several images have this id.*a\.jpg, a\.png",
    "60e-yolo-names-dict-from-1": "must be numbered from 0",
    "60h-yolo-names-yes-no": "True is not the name of a class: .* quote it",
    "61b-yolo-images-list": "images/val is missing",
    "62d-yolo-class-name": r"class 'cat' is not an index: .*a\.txt: line 1: cat",
    "93b-voc-only-difficult": "nothing to find, no AP",
}


@pytest.fixture
def check(monkeypatch):
    """Registers and checks the data sets of a case as a run does; returns a name to evaluate."""
    root = Path(os.getenv("MG_TEST_CASES", REPOSITORY.parent / "shared" / "cases"))
    if not root.is_dir():
        pytest.skip(f"small inputs not found at {root} (set MG_TEST_CASES)")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))

    def check(case):
        datasets = yaml.safe_load((root / case / "mine.yaml").read_text())["DATASETS"]
        entries = [{**e, "name": f"{case}_{e['name']}"} for e in datasets["REGISTER"]]
        train, test = ([f"{case}_{n}" for n in datasets[key]] for key in ("TRAIN", "TEST"))
        register_datasets(entries)
        check_datasets(train)
        check_datasets([], test)  # apart, since some have the same images in both, which is told
        return test[0]

    return check


@pytest.mark.parametrize("case", READ)
def test_read(check, case, tmp_path, caplog):
    name = check(case)
    classes, told = READ[case]
    assert MetadataCatalog.get(name).thing_classes == classes
    assert all(len(record.objects) for record in records_of(name))
    if told:
        assert re.search(told, caplog.text)
    else:
        assert not [record for record in caplog.records if record.levelname != "INFO"]
    metrics = perfect_metrics(name, tmp_path)
    assert metrics.get("AP@300", metrics["AP"]) == pytest.approx(100)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(check, case):
    with pytest.raises(DatasetError, match=REFUSED[case]):
        check(case)


def test_sets_that_differ_in_their_classes(check):
    name = check("22b-coco-test-lacks-a-category")
    cfg = load_config(str(REPOSITORY / "configs" / "Base-Anchors.yaml"))
    cfg.DATASETS.TEST, cfg.DATASETS.TRAIN = (name,), (name[:-1] + "t",)
    message = "those of .*_t are cat, dog, those of others cat; .* the same `classes`"
    with pytest.raises(ConfigError, match=message):
        resolve_classes(cfg)


def test_every_case_has_its_row(check):
    folders = {p.name for p in Path(os.environ["DETECTRON2_DATASETS"]).iterdir() if p.is_dir()}
    assert folders == {*READ, *REFUSED, "22b-coco-test-lacks-a-category"}
