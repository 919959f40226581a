"""The commands of the pages, as a reader would run them."""

import subprocess
import sys

import pytest

from tests.conftest import PAGES, REPOSITORY, load_script

tool = load_script("tools/try_pages.py")
Reader, commands = tool.Reader, tool.commands

PAGE = """# Page
```yaml
python: no command
```

```
make quickstart    # a comment
SOME=1 python a.py --one \\
    --two "x y"  # more
python - <<'END'
print("two lines")
END
```

```
@inproceedings{python ...}
```
"""


def reader(folder, whole=False):
    """One that makes nothing."""
    made = Reader.__new__(Reader)
    made.home, made.whole = folder, whole
    (folder / "datasets").mkdir(exist_ok=True)
    return made


def test_commands_of_a_page():
    assert list(commands(PAGE)) == [
        "make quickstart",
        'SOME=1 python a.py --one      --two "x y"',
        "python - <<'END'\nprint(\"two lines\")\nEND",
    ]


@pytest.mark.parametrize(
    ("command", "needs"),
    [
        ("python train_net.py --config-file configs/Shapes/retinanet_R_18.yaml", ""),
        ("python tools/check_dataset.py configs/BCCD/retinanet_R_18.yaml", "BCCD"),
        ("python datasets/prepare_voc.py", "a download"),
        (
            "torchrun --nproc-per-node 8 train_net.py --config-file configs/COCO-Detection/x.yaml",
            "coco and several GPUs",
        ),
        ("python tools/experiment.py experiments/shapes_4000.yaml --dry-run", ""),
        ("python tools/experiment.py experiments/shapes_4000.yaml", "--whole: long"),
    ],
)
def test_what_a_command_needs_is_named(tmp_path, command, needs):
    assert reader(tmp_path).missing(command) == needs


def test_what_is_at_hand_is_not_left_out(tmp_path):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "BCCD").mkdir()
    whole = reader(tmp_path, whole=True)
    assert whole.missing("python tools/experiment.py experiments/bccd.yaml") == ""


def test_many_of_the_pages_commands_need_the_drawn_data_only(tmp_path):
    missing = [reader(tmp_path).missing(c) for page in PAGES for c in commands(page.read_text())]
    assert sum(not needs for needs in missing) > 25


@pytest.mark.slow
def test_the_commands_of_all_pages_run():
    command = [sys.executable, "tools/try_pages.py"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.rstrip().endswith(" 0 failed"), done.stdout
