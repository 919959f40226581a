import pytest

from tests.conftest import load_script
from tests.visualization.report.conftest import write_run


def report(*argv):
    """The script, called with a command line."""
    load_script("tools/report.py").main([*map(str, argv)])


def test_writes_the_page_and_tells_what_is_missing(tmp_path, capsys):
    run = write_run(tmp_path / "static")
    (run / "evaluation.json").unlink()
    page = tmp_path / "new" / "page.html"
    report(run, "--output", page)
    assert page.read_text().startswith("<!DOCTYPE html>")
    warning, done = capsys.readouterr().out.splitlines()
    assert warning.startswith(f"warning: {run / 'evaluation.json'} is missing; ")
    assert done == f"Report: {page}"


def test_names_that_are_no_utf8_stand_as_escapes(tmp_path, capsys):
    run = write_run(tmp_path / "caf\udce9")
    (run / "evaluation.json").unlink()
    report(run, "--output", tmp_path / "page.html")
    assert "caf\\udce9" in (tmp_path / "page.html").read_text()
    assert "caf\\udce9/evaluation.json is missing" in capsys.readouterr().out


def test_errors_are_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*nowhere is no output folder of a run"):
        report(tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="^error: the same run is given twice"):
        report(tmp_path, tmp_path)
    run = write_run(tmp_path / "static")
    with pytest.raises(SystemExit, match=r"^error: .*Is a directory"):
        report(run, "--output", tmp_path)
