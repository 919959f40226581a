"""The matcher in an environment that has PyTorch and nothing else."""

import doctest
import importlib.metadata
import pydoc
import subprocess
import venv
from pathlib import Path

from packaging.requirements import Requirement

import mutual_guidance.assignment

SCRIPT = """
import importlib.util, torch
from mutual_guidance.assignment import STRATEGIES, AnchorMatcher, PointMatcher

for absent in ("detectron2", "torchvision", "numpy", "fvcore"):
    assert importlib.util.find_spec(absent) is None, absent
anchors = torch.tensor([[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]])
points, strides, levels = torch.tensor([[4.0, 4.0]]), torch.tensor([8.0]), torch.tensor([0])
truth = [torch.tensor([[0.0, 0.0, 8.0, 8.0]])], [torch.tensor([1])]
for strategy in STRATEGIES:
    labels = AnchorMatcher(strategy)(anchors, *truth, anchors[None], torch.zeros(1, 2, 3))
    # Of two candidates none has an IoU of their mean and deviation.
    assert labels.cls_labels.tolist() == [[3, 3] if strategy == "atss" else [1, 3]], labels
    PointMatcher(strategy)(points, strides, levels, *truth, anchors[None, :1], torch.zeros(1, 1, 3))
print("labelled")
"""


def with_requirements(name, found=None):
    """Names of a distribution and of all that it needs to run here."""
    found = {} if found is None else found
    if name not in found:
        found[name] = importlib.metadata.distribution(name)
        for line in found[name].requires or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                with_requirements(requirement.name, found)
    return found


def link_into(folder, distribution):
    """Link a distribution's top-level modules into another site-packages."""
    for name in {path.parts[0] for path in distribution.files} - {"..", "__pycache__"}:
        target = folder / name
        if not target.exists():
            target.symlink_to(distribution.locate_file(name))


def test_labels_in_a_fresh_environment_of_torch_alone(tmp_path):
    venv.create(tmp_path, with_pip=False, symlinks=True)
    (site,) = tmp_path.glob("lib/python*/site-packages")
    for distribution in with_requirements("torch").values():
        link_into(site, distribution)
    (site / "mutual_guidance").symlink_to(Path(mutual_guidance.__file__).parent)
    # -I leaves out PYTHONPATH and the working directory, -W torch's note that numpy is absent.
    command = [str(tmp_path / "bin" / "python"), "-I", "-W", "ignore", "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == "labelled\n", done.stderr


def test_the_packages_example_is_true():
    failed, tried = doctest.testmod(mutual_guidance.assignment)
    assert failed == 0 and tried > 0


def test_pydoc_teaches_the_method():
    text = pydoc.plain(pydoc.render_doc(mutual_guidance.assignment))
    for word in (
        "AnchorMatcher",
        "PointMatcher",
        "Guarantee",
        "N_p",
        "sigma",
        "Eq. (1)",
        "cls_labels",
    ):
        assert word in text, word
