from pathlib import Path

import pytest

from mutual_guidance import detectron2_private
from mutual_guidance.detectron2_private import METHODS
from tests.conftest import REPOSITORY

SOURCES = sorted((REPOSITORY / "projects/MutualGuidance/mutual_guidance").rglob("*.py"))


@pytest.mark.parametrize("owner", METHODS, ids=lambda owner: owner.__name__)
def test_detectron2_still_has_the_private_methods(owner):
    gone = [name for name in METHODS[owner] if not hasattr(owner, name)]
    assert not gone, f"{owner.__name__} lost {gone}; used in {users(gone)}"


def test_every_method_listed_is_used():
    unused = [name for names in METHODS.values() for name in names if not users([name])]
    assert not unused


def users(names):
    here = Path(detectron2_private.__file__)
    return [p.name for p in SOURCES if p != here and any(n in p.read_text() for n in names)]
