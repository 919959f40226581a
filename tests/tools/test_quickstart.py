import json
import os
import signal

import pytest

from tests.conftest import load_script


@pytest.fixture
def quickstart(tmp_path, monkeypatch):
    """The script, with its runs recorded instead of made."""
    module = load_script("tools/quickstart.py")
    module.commands = []

    def run(*command):
        module.commands.append(command)
        if command[0] == "train_net.py":
            folder = tmp_path / command[command.index("OUTPUT_DIR") + 1]
            folder.mkdir(parents=True)
            metrics = {"AP": 1.0, "AP50": 2.0, "AP75": 3.0, "AP-ring": 4.0}
            (folder / "evaluation.json").write_text(json.dumps({"x": {"bbox": metrics}}))

    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "run", run)
    return module


def test_one_table_and_json_for_all_strategies(quickstart, tmp_path, capsys):
    strategies = ["static", "mutual_guidance"]
    quickstart.main(["--strategies", *strategies, "static"])  # which is trained once
    results = json.loads((tmp_path / "output/quickstart/results.json").read_text())
    assert results == dict.fromkeys(strategies, {"AP": 1.0, "AP50": 2.0, "AP75": 3.0})
    table = capsys.readouterr().out
    assert "| strategy" in table and "ring" in table and "output/quickstart" in table
    trained = [c for c in quickstart.commands if c[0] == "train_net.py"]
    assert len(trained) == 2 and all("--resume" in c for c in trained)
    runs = tuple(f"output/quickstart/{strategy}" for strategy in strategies)
    reported = quickstart.commands[-1]
    assert reported[:3] == ("tools/report.py", *runs)
    assert reported[-1] == "output/quickstart/report.html" and reported[-1] in table


def test_a_training_ends_with_the_script(monkeypatch):
    ended = []

    class Process:
        def wait(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return 143

        def terminate(self):
            ended.append(self)

    monkeypatch.setattr("subprocess.Popen", lambda *args, **kwargs: Process())
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit, match="143"):
            load_script("tools/quickstart.py").run("train_net.py")
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert len(ended) == 1


def test_unknown_strategy_is_refused(quickstart):
    with pytest.raises(SystemExit):
        quickstart.main(["--strategies", "mutual"])
    assert quickstart.commands == []
