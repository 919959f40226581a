"""The commands of the pages: every option and every key in them exists."""

import argparse
import re
import runpy
import shlex
import sys

import pytest

from mutual_guidance.engine import load_config
from tests.conftest import REPOSITORY
from tests.runs import CONFIG

PAGES = [
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "datasets/README.md")),
    *sorted((REPOSITORY / "projects" / "MutualGuidance").glob("*.md")),
]
KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z][A-Z0-9_]*)+")


def commands(page):
    """What follows `python` or `torchrun` in the page's blocks, as lists of words."""
    text = page.read_text().replace("\\\n", " ")
    for block in re.findall(r"^ *```\w*\n(.*?)```", text, flags=re.DOTALL | re.MULTILINE):
        lines = [line.split("#")[0] for line in block.split("\n")]
        for command in (c for line in lines for c in re.split(r"&(?=\s|$)|\$\(|;", line)):
            found = re.match(r"\s*(?:[A-Z0-9_]+=\S+ )*(?:python|torchrun)\s(.*)", command)
            if found:
                yield shlex.split(found[1].replace(")", ""))


ALL = sorted({(words[i], *words[i + 1 :]) for page in PAGES for words in commands(page)
              for i, word in enumerate(words) if word.endswith(".py")})  # fmt: skip
# The examples take no options; tests run them.
SCRIPTS = sorted({command[0] for command in ALL if not command[0].startswith("examples/")})


def options_of(script, monkeypatch):
    """The options that the script's parser knows."""
    known = set()
    add = argparse._ActionsContainer.add_argument

    def watched(self, *flags, **kwargs):
        known.update(flag for flag in flags if isinstance(flag, str))
        return add(self, *flags, **kwargs)

    monkeypatch.setattr(argparse._ActionsContainer, "add_argument", watched)
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.syspath_prepend(str((REPOSITORY / script).parent))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    assert not end.value.code
    return known


def test_pages_name_most_scripts():
    assert len(ALL) > 40 and {"train_net.py", "tools/predict.py", "tools/export.py"} <= {*SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS)
def test_options_in_the_pages_exist(script, monkeypatch, capsys):
    known = options_of(script, monkeypatch)
    for name, *words in ALL:
        used = {word.split("=")[0] for word in words if word.startswith("--")}
        assert name != script or used <= known, (name, *words)


def test_keys_in_the_pages_exist():
    cfg = load_config(str(REPOSITORY / CONFIG), [])
    keys = {word for _, *words in ALL for word in words if KEY.fullmatch(word)}
    assert "MODEL.WEIGHTS" in keys
    for key in keys:
        node = cfg
        for part in key.split("."):
            assert part in node, key
            node = node[part]
