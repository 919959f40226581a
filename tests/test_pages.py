"""What the pages promise: tests that exist, links that lead somewhere, examples that run."""

import re
from unittest import mock

import pytest
import torch

from mutual_guidance.assignment import AnchorMatcher, strategies
from mutual_guidance.experiments.grid import load_experiment
from tests.conftest import PAGES, REPOSITORY, python_of


def test_every_row_of_reliability_names_a_test_that_exists():
    rows = (REPOSITORY / "docs" / "reliability.md").read_text().splitlines()
    rows = [row for row in rows if row.startswith("| ") and not row.startswith("| tried")]
    assert len(rows) > 20
    for row in rows:
        tests = re.findall(r"`(tests/\S+\.py)::(\w+)`", row)
        assert tests, row
        for path, name in tests:
            assert f"def {name}(" in (REPOSITORY / path).read_text(), (path, name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_have_a_title_and_their_links_and_commands_lead_to_files(page):
    text = page.read_text()
    assert text.startswith("# ")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in link or (page.parent / link).exists(), link
    for block in re.findall(r"```\n(.*?)```", text, flags=re.DOTALL):
        for script in re.findall(r"python ([\w/]+\.py)", block):
            assert (REPOSITORY / script).is_file(), script
        for config in re.findall(r"configs/[\w/-]+\.yaml", block):
            assert (REPOSITORY / config).is_file(), config


def test_the_experiment_that_explains_the_keys_is_one(tmp_path):
    page = (REPOSITORY / "docs" / "experiments.md").read_text()
    (text,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text)
    experiment = load_experiment(tmp_path / "mine.yaml", tmp_path)
    assert len(experiment.cells) == 3 * 4 * (1 + 2 + 1) and experiment.questions


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_versions_are_those_of_the_requirements(page):
    """Which differ by Python, so that no page repeats one."""
    assert not re.findall(r"[\w-]+==\d\S*", page.read_text())


def test_the_matchers_page_runs():
    names = {}
    exec(python_of("matcher.md"), names)
    labels = names["labels"]
    assert labels.cls_labels.shape == (2, 1000) and labels.loc_mask[0].any()
    assert (labels.cls_labels[1] == 20).all()  # an image without ground truth is background


def test_the_strategies_pages_own_rule_labels_by_what_it_says():
    # IoUs of the anchors 0.8, 0.6 and 0.45, of the regressed boxes 0.5, 0.6 and 0.9; two positives.
    anchors = torch.tensor([[0, 0, 10, 8], [0, 0, 10, 6], [0, 0, 10, 4.5]])
    pred_boxes = torch.tensor([[[0.0, 0, 10, 5], [0, 0, 10, 6], [0, 0, 10, 9]]])
    truth = [torch.tensor([[0.0, 0, 10, 10]])], [torch.tensor([0])]
    with mock.patch.dict(strategies.QUALITIES), mock.patch.dict(strategies.STRATEGIES):
        exec(python_of("strategies.md"), vars(strategies).copy())
        positives = {
            name: AnchorMatcher(name)(anchors, *truth, pred_boxes, torch.zeros(1, 3, 1)).cls_gt_inds
            for name in ("both_ious", "mutual_guidance")
        }
    assert (positives["both_ious"] >= 0).tolist() == [[True, False, True]]
    assert (positives["mutual_guidance"] >= 0).tolist() == [[False, True, True]]


NUMBER = r"[+-]?\d+\.\d+"
# Of the prose, whose brackets may be a link's: "by 0.6 (0.1 to 1.1)", "3.1 ([2.1 to 4.1](#...))".
INTERVAL = rf"(?:({NUMBER})(?: %)?,? )?[(\[]+(?:interval\]\(#\S+\): )?({NUMBER}) to ({NUMBER})[)\]]"


def sizes(*numbers):
    """Without their signs, which the prose may put into words, and in order."""
    return tuple(sorted(number.strip("+-") for number in numbers if number))


def test_the_intervals_of_the_results_are_of_their_tables_or_shown_code(monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    exec(python_of("results.md").replace("20_000", "20"), {})  # which would take minutes
    text = re.sub(r"```.*?```", "", (REPOSITORY / "docs/results.md").read_text(), flags=re.DOTALL)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    shown = "\n".join([*rows, capsys.readouterr().out])
    known = set()
    for found in re.findall(rf"({NUMBER}) \(({NUMBER}) to ({NUMBER})\)", shown):
        known |= {sizes(*found), sizes(*found[1:])}
    prose = " ".join(line for line in text.splitlines() if not line.startswith("|"))
    told = re.findall(INTERVAL, " ".join(prose.split()))
    assert len(told) > 20
    assert not [found for found in told if sizes(*found) not in known]


def test_the_readmes_figures_are_those_of_the_pages():
    front, results, performance = (
        (REPOSITORY / name).read_text()
        for name in ("README.md", "docs/results.md", "docs/performance.md")
    )
    results = re.sub(" +", " ", results)
    rows = re.findall(r"\| (AP\d* \| \S+ \| \S+ \| \S+ \(\S+ to \S+\) \|)\n", front)
    assert len(rows) == 12
    for row in rows:
        assert f"| mutual_guidance {row}" in results, row
    measured = re.findall(r"\b(75,000|110|961)", front)
    assert len(measured) == 3
    for figure in measured:
        assert re.search(rf"(?<![\d.]){figure}(?![\d.])", performance), figure
    own, static, step = (
        float(re.search(pattern, results)[1])
        for pattern in (
            r"`mutual_guidance` ([\d.]+)",
            r"`static` ([\d.]+), `class",
            r"takes (\d+) ms",
        )
    )
    assert f"take {100 * own / step:.1f} % of" in front
    assert f"against {100 * static / step:.1f} % with `static`" in front
