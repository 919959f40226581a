import os
import subprocess
from pathlib import Path

import pytest

from mutual_guidance.experiments.records import (
    UNCOMMITTED,
    UNKNOWN,
    _commit,
    environment,
    history,
    is_committed,
    plan_commits,
)
from mutual_guidance.machine import processor


def test_a_run_is_told_to_be_on_the_device_that_it_was_on(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device=None: f"GPU {device}")
    devices = [environment(device)["device"] for device in ("cuda:1", "cpu")]
    assert devices == ["GPU cuda:1", processor()]


@pytest.fixture(autouse=True)
def no_git_of_the_callers(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))


def test_the_plans_commit_is_that_of_before_the_runs(tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=A", "-c", "user.email=a@b.c")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    def commit(file):
        (tmp_path / file).write_text(file)
        git("add", file), git("commit", "-qm", file)
        return git("rev-parse", "--short", "HEAD").stdout.strip()

    def plans(*launched, strategy="mutual_guidance"):
        runs = [{"strategy": strategy, "commits": [c, "other"]} for c in launched]
        return plan_commits(tmp_path, Path("plan.yaml"), runs)

    git("init", "-q")
    before, of_plan, after = commit("a"), commit("plan.yaml"), commit("b")
    assert plans(after, of_plan) == plans(after) == [of_plan]
    assert plans(after + "-dirty") == [of_plan + "-dirty"]
    assert plans(before) == plans(before + "-dirty") == [UNCOMMITTED]
    assert plans(before, strategy="static") == []
    assert plans("unknown") == plans("0123abc") == [UNKNOWN]
    (tmp_path / ".git" / "shallow").write_text(git("rev-parse", after).stdout)
    assert plans(after) == [UNKNOWN]
    (tmp_path / ".git" / "shallow").unlink()

    assert is_committed(tmp_path, Path("plan.yaml"))
    assert not is_committed(tmp_path, Path("none.yaml"))
    assert _commit(tmp_path) == after
    (tmp_path / "plan.yaml").write_text("another")
    assert not is_committed(tmp_path, Path("plan.yaml"))
    assert _commit(tmp_path) == after + "-dirty"


def test_outside_a_checkout_the_commit_is_unknown(tmp_path):
    assert _commit(tmp_path) == "unknown"


def test_history_has_each_evaluation_and_the_means_since_the_one_before():
    rows = {
        19: {"total_loss": 4.0, "time": 0.5},
        39: {"total_loss": 2.0, "assignment/agreement": 0.5},
        49: {"bbox/AP": 10.0, "bbox/AP-cat": 9.0, "bbox/APs": float("nan")},
        59: {"total_loss": 1.0, "assignment/agreement": 0.25},
        60: {"bbox/AP": 20.0},  # after the last iteration, which Detectron2 counts as one more
        61: {"bbox/AP": 20.0},  # and again, launched once more after its end
        79: {"total_loss": 0.0},
    }
    assert history(rows, last=60) == [
        {"iteration": 50, "total_loss": 3.0, "assignment/agreement": 0.5, "AP": 10.0},
        {"iteration": 60, "total_loss": 1.0, "assignment/agreement": 0.25, "AP": 20.0},
    ]
