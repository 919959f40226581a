import pytest
from detectron2.data import DatasetCatalog

from mutual_guidance.data import check_datasets, register_datasets
from mutual_guidance.data.folds import fold_part
from mutual_guidance.errors import DatasetError
from mutual_guidance.evaluation.ground_truth import load_records

IDS = [f"image {i}" for i in range(11)]


def part(fold, which="test", seed=1, ids=IDS, folds=4):
    split = {"of": ["all"], "folds": folds, "seed": seed, "fold": fold, "part": which}
    return fold_part(ids, split)


def test_every_image_is_held_out_once():
    parts = [part(fold) for fold in (1, 2, 3, 4)]
    assert sorted(sum(parts, [])) == sorted(IDS)
    assert [len(p) for p in parts] == [3, 3, 3, 2]
    for fold, held_out in enumerate(parts, start=1):
        assert sorted(held_out + part(fold, "train")) == sorted(IDS)


def test_folds_depend_on_the_ids_and_the_seed_alone():
    # Every fourth line of: for i in {0..10}; do printf "1 image $i" | sha256sum; done | sort
    assert part(1) == ["image 1", "image 7", "image 9"]
    assert part(1, ids=[*reversed(IDS), IDS[0]]) == part(1)
    assert part(1, seed=2) != part(1)


def test_a_fold_of_several_splits_trains_and_is_evaluated(voc, voc_entry):
    for i, image_id in enumerate(IDS):
        split = ("train", "val", "test")[i % 3]
        voc.add(image_id.replace(" ", "_"), [("green", (1, 1, 9, 9))], split=split)
    split = {"of": ["train", "val", "test"], "folds": 4, "seed": 1, "fold": 2}
    entries = [
        {**voc_entry, "name": f"{voc_entry['name']}_{p}", "split": {**split, "part": p}}
        for p in ("train", "test")
    ]
    register_datasets(entries)
    check_datasets([entry["name"] for entry in entries])
    train, test = ([r["image_id"] for r in DatasetCatalog.get(e["name"])] for e in entries)
    assert len(train) == 8 and len(test) == 3
    assert sorted(train + test) == sorted(i.replace(" ", "_") for i in IDS)
    assert [r.image_id for r in load_records(entries[1]["name"])] == test


def test_too_few_images_are_refused():
    with pytest.raises(DatasetError, match="3 images cannot be divided into 4 folds"):
        part(1, ids=IDS[:3])


@pytest.mark.parametrize(
    "change", [{"fold": 0}, {"fold": 5}, {"folds": 1}, {"part": "val"}, {"of": "all"}, {"more": 1}]
)
def test_a_mapping_that_is_no_fold_is_refused(voc_entry, change):
    split = {"of": ["train"], "folds": 4, "seed": 1, "fold": 1, "part": "test", **change}
    with pytest.raises(DatasetError, match="a split is a name, or, for cross-validation"):
        register_datasets([{**voc_entry, "split": split}])
