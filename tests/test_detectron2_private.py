import ast
from pathlib import Path

import pytest

from mutual_guidance import detectron2_private
from mutual_guidance.detectron2_private import PRIVATE
from tests.conftest import REPOSITORY

LIBRARIES = ("detectron2", "fvcore", "iopath")
# Of Python, and _last_eval_results, which Detectron2's trainer has once it has evaluated.
OTHERS = {"_Unpickler", "_asdict", "_exit", "_last_eval_results", "_replace", "_subparsers"}
OTHERS |= {"_BatchNorm", "_gts", "_dts"}  # of PyTorch and pycocotools
PACKAGE = sorted((REPOSITORY / "projects/MutualGuidance/mutual_guidance").rglob("*.py"))
HERE = Path(detectron2_private.__file__)
SOURCES = [p for p in PACKAGE if p != HERE]
SCRIPTS = [REPOSITORY / "train_net.py", *(p for d in ("tools", "benchmarks", "datasets", "examples")
           for p in (REPOSITORY / d).glob("*.py"))]  # fmt: skip


@pytest.mark.parametrize("owner", PRIVATE, ids=lambda owner: owner.__name__)
def test_detectron2_still_has_the_private_names(owner):
    gone = [name for name in PRIVATE[owner] if not hasattr(owner, name)]
    assert not gone, f"{owner.__name__} lost {gone}; used in {users(gone)}"


def test_every_name_listed_is_used():
    unused = [name for names in PRIVATE.values() for name in names if not users([name])]
    assert not unused


def users(names):
    return [p.name for p in SOURCES if any(n in p.read_text() for n in names)]


def imported(path):
    """Private names, and those in private modules, that a file imports of the libraries."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            library, *parts = name.split(".")
            if library in LIBRARIES and any(part.startswith("_") for part in parts):
                yield name


def test_one_module_imports_private_names():
    assert list(imported(HERE)) == ["detectron2.data.build._train_loader_from_config"]
    found = {str(p): list(imported(p)) for p in (*SOURCES, *SCRIPTS)}
    assert not {path: names for path, names in found.items() if names}


def test_every_private_method_that_is_called_is_listed():
    nodes = [node for p in PACKAGE for node in ast.walk(ast.parse(p.read_text()))]
    private = {n.attr for n in nodes if isinstance(n, ast.Attribute) and n.attr[:1] == "_"}
    private = {name for name in private if not name.startswith("__")}
    own = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    own |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}
    own |= {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    listed = {name for names in PRIVATE.values() for name in names}
    assert private - own - OTHERS <= listed
