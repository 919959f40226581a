"""The commands of the pages: their scripts take them, and every key in them exists."""

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys

import pytest

from mutual_guidance.arguments import Parser
from mutual_guidance.config import load_config
from mutual_guidance.run_files import flatten
from tests.conftest import PAGES, REPOSITORY
from tests.runs import CONFIG

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
# Without a parser: the examples, which tests run, and what passes on to other programs.
COMMANDS = [c for c in ALL if not c[0].startswith("examples/") and c[0] != "tools/env.py"]


class Parsed(BaseException):
    """The arguments were fine; nothing is run."""


def test_pages_name_most_scripts():
    scripts = {command[0] for command in COMMANDS}
    assert len(COMMANDS) > 40 and {"train_net.py", "tools/predict.py", "tools/export.py"} <= scripts


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_scripts_parser_takes_the_command(command, monkeypatch):
    def parsing(parse):
        def parse_only(self, *args, **kwargs):
            parse(self, *args, **kwargs)
            raise Parsed

        return parse_only

    for kind in (argparse.ArgumentParser, Parser):
        monkeypatch.setattr(kind, "parse_args", parsing(kind.parse_args))
    monkeypatch.setattr(sys, "argv", list(command))
    monkeypatch.syspath_prepend(str((REPOSITORY / command[0]).parent))
    with pytest.raises(Parsed):
        runpy.run_path(str(REPOSITORY / command[0]), run_name="__main__")


def test_keys_in_the_pages_exist():
    keys = {word for _, *words in ALL for word in words if KEY.fullmatch(word)}
    assert "MODEL.WEIGHTS" in keys and keys <= flatten(load_config(CONFIG)).keys()


SCRIPTS = sorted(
    str(path.relative_to(REPOSITORY))
    for folder in (".", "tools", "benchmarks", "datasets")
    for path in (REPOSITORY / folder).glob("*.py")
    if '__name__ == "__main__"' in path.read_text() and path.name != "env.py"
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_begins_with_a_sentence_and_an_example(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    monkeypatch.syspath_prepend(str((REPOSITORY / script).parent))
    with pytest.raises(SystemExit):
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")
    sentence, example = capsys.readouterr().out.split("\n\n")[1:3]
    assert sentence.endswith(".") and f"python {script}" in example


def test_known_warnings_of_others_are_silent():
    command = [sys.executable, "train_net.py", "--help"]
    theirs = ("PYTHONWARNINGS", "PYTHONDEVMODE")
    env = {name: value for name, value in os.environ.items() if name not in theirs}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=env)
    assert done.returncode == 0 and done.stderr == ""
