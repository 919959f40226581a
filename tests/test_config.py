"""The project's keys beside Detectron2's, as a user of Detectron2 meets them."""

import re
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


def run_python(code):
    """What a fresh interpreter prints."""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert not done.returncode, done.stderr
    return done.stdout


def test_its_import_registers_the_detectors():
    printed = run_python(
        "from mutual_guidance import add_mutual_guidance_config\n"
        "from detectron2.modeling import META_ARCH_REGISTRY as known\n"
        "print(*(name in known for name in ('FSSD', 'RFBNet', 'GuidedRetinaNet', 'GuidedFCOS')))"
    )
    assert printed == "True True True True\n"


def test_the_matcher_imports_nothing_of_detectron2():
    printed = run_python(
        "import sys, mutual_guidance.assignment\n"
        "print(sorted({'detectron2', 'fvcore', 'torchvision', 'yacs'} & set(sys.modules)))"
    )
    assert printed == "[]\n"


def test_the_package_has_no_other_names():
    import mutual_guidance

    with pytest.raises(AttributeError, match="'mutual_guidance' has no attribute 'AnchorMatcher'"):
        mutual_guidance.AnchorMatcher  # noqa: B018


def test_a_stock_config_keeps_its_network_as_the_readme_says():
    page = (REPOSITORY / "projects" / "MutualGuidance" / "README.md").read_text()
    (code,) = re.findall(r"```python\n(from detectron2.*?)```", page, re.S)
    names = {}
    exec(code, names)
    guided = names["model"]
    assert type(guided).__name__ == "GuidedRetinaNet"
    cfg = names["cfg"].clone()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    stock = names["build_model"](cfg)
    shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (stock, guided)]
    assert shapes[0] == shapes[1]
