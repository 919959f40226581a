import json
import os
from pathlib import Path

import pytest
import torch.distributed as dist
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from mutual_guidance.data import check_datasets, records_of, register, register_datasets
from mutual_guidance.data.faults import Fault
from mutual_guidance.errors import DatasetError
from tests.runs import in_two_processes


def check(entry, good, bad, path):
    """Note what a process read and what it has; run in every process."""
    read, compared = [], []
    load, compare = register._LOADERS["voc"], register._tested_on_trained
    register._LOADERS["voc"] = lambda entry: read.append(entry["name"]) or load(entry)
    register._tested_on_trained = lambda *sets: compared.append(sets) or compare(*sets)
    register_datasets([{**entry, "name": good}, {**entry, "name": bad, "split": "none"}])
    check_datasets([good], [good])
    with pytest.raises(DatasetError, match="none"):
        check_datasets([bad])
    has = {
        "read": read,
        "compared": len(compared),
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
    assert first.pop("compared") == 1 and second.pop("compared") == 0
    assert first == second and first["classes"] == ["blue", "green"]
    assert [len(objects) for objects in first["objects"]] == [2, 1]


def check_on_two_machines(entry):
    """Check what one of two machines cannot use; run in every process."""
    comm._LOCAL_PROCESS_GROUP = [dist.new_group([rank]) for rank in range(2)][comm.get_rank()]
    load = register._LOADERS["voc"]

    def load_or_fail(entry):
        if comm.get_rank() == 1 and entry["name"] == "torn_there":
            raise DatasetError("torn on the second machine")
        loaded = load(entry)
        faults = [Fault("a", "faulty on the second machine")] * comm.get_rank()
        return loaded._replace(faults=faults if entry["name"] == "faulty_there" else [])

    register._LOADERS["voc"] = load_or_fail
    for name in ("torn", "faulty"):
        register_datasets([{**entry, "name": f"{name}_there"}])
        with pytest.raises(DatasetError, match=f"{name} on the second machine"):
            check_datasets([f"{name}_there"])
    register_datasets([{**entry, "name": "whole"}])
    check_datasets(["whole"], ["whole"])
    assert comm.all_gather(len(records_of("whole"))) == [1, 1]


def test_what_one_machine_cannot_use_stops_all(voc, voc_entry):
    voc.add("a", [("green", (1, 1, 9, 9))])
    in_two_processes(check_on_two_machines, voc_entry)
