import json
import os
from pathlib import Path

import pytest
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from mutual_guidance.data import check_datasets, records_of, register, register_datasets
from mutual_guidance.errors import DatasetError
from tests.runs import in_two_processes


def check(entry, good, bad, path):
    """Note what a process read and what it has; run in every process."""
    read = []
    load = register._LOADERS["voc"]
    register._LOADERS["voc"] = lambda entry: read.append(entry["name"]) or load(entry)
    register_datasets([{**entry, "name": good}, {**entry, "name": bad, "split": "none"}])
    check_datasets([good])
    with pytest.raises(DatasetError, match="none"):
        check_datasets([bad])
    has = {
        "read": read,
        "objects": [record.objects["box"].tolist() for record in records_of(good)],
        "classes": MetadataCatalog.get(good).thing_classes,
    }
    with open(f"{path}.{comm.get_rank()}", "w") as f:
        json.dump(has, f)


def test_one_process_reads_for_all_of_its_machine(voc, voc_entry, tmp_path):
    voc.add("a", [("green", (1, 1, 9, 9)), ("blue", (1, 1, 9, 9))])
    voc.add("b", [("blue", (2, 2, 9, 9))])
    del voc_entry["classes"]
    path = os.fspath(tmp_path / "has")
    in_two_processes(check, voc_entry, "shared", "shared_bad", path)
    first, second = (json.loads(Path(f"{path}.{rank}").read_text()) for rank in range(2))
    assert first.pop("read") == ["shared", "shared_bad"] and second.pop("read") == []
    assert first == second and first["classes"] == ["blue", "green"]
    assert [len(objects) for objects in first["objects"]] == [2, 1]
