"""tools/env.py, without a network and without a real virtual environment."""

import ast
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import REPOSITORY, load_script

SCRIPT = REPOSITORY / "tools" / "env.py"


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, its project being an empty copy in `tmp_path`."""
    module = load_script("tools/env.py")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.delenv("DETECTRON2", raising=False)
    (tmp_path / "tools").mkdir()
    for name in module.INPUTS:
        (tmp_path / name).write_text("")
    return module


@pytest.fixture
def steps(env: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that the script would run, in order; a fresh .venv that lacks everything."""
    commands = []

    def run(step: str, *command: str) -> None:
        commands.append(" ".join(command))
        if "venv" in command:
            env.VENV.mkdir()
        if "download" in command:
            make_wheel(Path(command[command.index("-d") + 1]))

    monkeypatch.setattr(env, "run", run)
    monkeypatch.setattr(env, "succeeds", lambda *command: False)
    monkeypatch.setattr(env, "check_disk", lambda: None)
    monkeypatch.setattr(env, "is_active_ready", lambda: False)
    return commands


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function that leaves the calling Python only the named modules."""

    def only(*names: str) -> None:
        find = lambda name: object() if name in names else None  # noqa: E731
        monkeypatch.setattr(importlib.util, "find_spec", find)

    return only


def make_wheel(folder: Path) -> Path:
    """Write a tiny wheel with the layout of the one that is pinned."""
    info = "sal_detectron2-0.7.2.dist-info"
    contents = {
        "detectron2/__init__.py": "",
        "detectron2/_C.cpython-310-x86_64-linux-gnu.so": "ELF",
        "detectron2/tools/__init__.py": "",
        "tools/__init__.py": "",
        "tools/train_net.py": "",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: sal-detectron2\nVersion: 0.7.2\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: cp310-none-any\n",
    }
    record = [f"{name},sha256=0,{len(text)}" for name, text in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,"]) + "\n"
    wheel = folder / "sal_detectron2-0.7.2-cp310-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, text)
    return wheel


def fails(env: ModuleType, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the script, which has to fail with one line on stderr; return that line."""
    assert env.main(["-c", "raise SystemExit('must not run')"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_parses_on_old_python() -> None:
    ast.parse(SCRIPT.read_text(), feature_version=(3, 6))


def test_old_python(env, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    error = fails(env, capsys)
    assert "Python 3.9 is too old" in error
    assert "PYTHON=" in error


def test_a_ready_venv_is_used_whatever_the_callers_python(env, steps, monkeypatch) -> None:
    env.main([])
    steps.clear()
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    assert env.main([]) == 0
    (env.ROOT / "requirements.txt").write_text("# changed\n")
    assert env.main([]) == 1
    assert steps == []


def test_a_venv_of_the_users_keeps_its_pytorch(env, steps, monkeypatch, capsys) -> None:
    looked = []
    monkeypatch.setattr(env, "succeeds", lambda *command: looked.append(command) or True)
    assert "has a PyTorch that making .venv could replace" in fails(env, capsys)
    assert steps == [] and looked[0][0] == str(env.VENV / "bin" / "python")
    (python, *options, code), *_ = looked
    assert "-I" in options  # not what the caller's PYTHONPATH has
    assert subprocess.run([sys.executable, *options, code]).returncode == 0  # which has PyTorch
    absent = code.replace("torch", "no_such_package")
    assert subprocess.run([sys.executable, *options, absent]).returncode == 1


@pytest.mark.parametrize("moved", [False, True])
def test_a_moved_venv_is_told_and_kept(env, steps, monkeypatch, capsys, moved) -> None:
    monkeypatch.setattr(env, "succeeds", lambda *command: True)
    (env.VENV / "bin").mkdir(parents=True)
    (env.VENV / env.STAMP).write_text("of another place")
    made_in = "/elsewhere/.venv" if moved else str(env.VENV)
    (env.VENV / "bin" / "activate").write_text(f'VIRTUAL_ENV="{made_in}"\n')
    assert env.main([]) == 0
    assert not any("--clear" in step for step in steps)
    assert ("made elsewhere, where its activate leads" in capsys.readouterr().out) is moved


@pytest.mark.parametrize("present, missing", [("venv", "ensurepip"), ("ensurepip", "venv")])
def test_no_venv_module(env, steps, modules, capsys, present, missing) -> None:
    modules(present)
    error = fails(env, capsys)
    assert f"no module '{missing}'" in error
    assert "apt install python{}.{}-venv".format(*sys.version_info) in error
    assert steps == []


def test_no_disk(env, monkeypatch, capsys) -> None:
    monkeypatch.setattr(env, "is_active_ready", lambda: False)
    usage = shutil.disk_usage(env.ROOT)._replace(free=1_500_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    error = fails(env, capsys)
    assert "needs about 10 GB" in error
    assert "1.5 GB left" in error
    assert not env.VENV.exists()


@pytest.mark.parametrize(
    "message, remedy",
    [
        ("connection broken by 'NewConnectionError'", "check the network"),
        ("OSError: [Errno 28] No space left on device", "free some space"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES", "not the pinned file"),
        ("ERROR: Cannot find command 'git'", "unset DETECTRON2"),
        ("something else", "last lines are above"),
    ],
)
def test_failed_step(env, capsys, message, remedy) -> None:
    script = f"import sys; print('early\\n' * 50 + {message!r}, file=sys.stderr); sys.exit(2)"
    with pytest.raises(env.SetupError, match=f"^Doing it failed: .*{remedy}.*[.]$"):
        env.run("Doing it", sys.executable, "-c", script)
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 12
    assert shown[-1] == message


def test_failed_step_leaves_no_stamp(env, steps, monkeypatch, capsys) -> None:
    def run(step: str, *command: str) -> None:
        if "requirements.txt" in command:
            raise env.SetupError(f"{step} failed.")
        env.VENV.mkdir(exist_ok=True)

    monkeypatch.setattr(env, "run", run)
    assert env.main([]) == 1
    assert capsys.readouterr().err == "error: Installing the requirements failed.\n"
    assert (env.VENV / env.STAMP).read_text() == ""


def test_unwritable_folder(env, steps, monkeypatch, capsys) -> None:
    def run(step: str, *command: str) -> None:
        raise PermissionError(13, "Permission denied", "site-packages")

    monkeypatch.setattr(env, "run", run)
    assert "Permission denied: 'site-packages'" in fails(env, capsys)


def test_fresh_venv(env, steps) -> None:
    assert env.main([]) == 0
    python = str(env.VENV / "bin" / "python")
    assert steps[0] == f"{sys.executable} -m venv --clear --without-pip {env.VENV}"
    assert [s.split()[2] for s in steps[1:]] == ["ensurepip", "pip", "pip", "pip", "pip"]
    assert all(s.startswith(python) for s in steps[1:])
    assert steps[2].endswith("install -r requirements.txt")
    assert "download" in steps[3] and "--require-hashes" in steps[3]
    assert "--no-index" in steps[4] and steps[4].endswith("sal-detectron2==0.7.2")
    assert steps[5].endswith("install --no-deps --no-build-isolation -e .")


def test_working_venv_is_kept(env, steps, monkeypatch) -> None:
    env.VENV.mkdir()
    (env.VENV / env.STAMP).touch()
    monkeypatch.setattr(env, "succeeds", lambda *command: True)
    assert env.main([]) == 0
    assert [s.split(" ", 1)[1] for s in steps] == [
        "-m pip install -r requirements.txt",
        "-m pip install --no-deps --no-build-isolation -e .",
    ]


def test_second_call_does_nothing(env, steps, monkeypatch) -> None:
    started = []
    monkeypatch.setattr(os, "execv", lambda path, args: started.append((path, args)))
    env.main([])
    steps.clear()
    env.main(["-m", "pytest"])
    assert steps == []
    python = str(env.VENV / "bin" / "python")
    assert started == [(python, [python, "-m", "pytest"])]


@pytest.mark.parametrize("version, is_told", [("3.9.1", True), (sys.version.split()[0], False)])
def test_venv_of_another_python_is_used_and_told(
    env, monkeypatch, capsys, version, is_told
) -> None:
    env.VENV.mkdir()
    (env.VENV / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {version}\n")
    monkeypatch.setattr(env, "prepare", lambda: str(env.VENV / "bin" / "python"))
    assert env.main([]) == 0
    assert (".venv is of Python 3.9: remove it to have one" in capsys.readouterr().out) is is_told


@pytest.mark.parametrize("name", ["requirements.txt", "setup.cfg", "pyproject.toml"])
def test_changed_input_is_noticed(env, steps, name) -> None:
    env.main([])
    steps.clear()
    (env.ROOT / name).write_text("# changed\n")
    env.main([])
    assert steps


def test_detectron2_from_git(env, steps, monkeypatch) -> None:
    monkeypatch.setenv("DETECTRON2", "git")
    assert env.main([]) == 0
    assert steps[3].endswith("pip install --no-build-isolation " + env.REPOSITORY)
    assert not any("download" in s.split() for s in steps)


def test_detectron2_from_elsewhere(env, steps, monkeypatch, capsys) -> None:
    monkeypatch.setenv("DETECTRON2", "conda")
    assert "DETECTRON2=conda is unknown" in fails(env, capsys)
    assert steps == []


@pytest.mark.parametrize(
    "names, ready",
    [
        (("torch", "detectron2"), True),
        (("torch",), False),
        (("detectron2",), False),
        ((), False),
    ],
)
def test_is_active_ready(env, modules, names, ready) -> None:
    modules(*names)
    assert env.is_active_ready() is ready


@pytest.mark.parametrize(("found", "ready"), [("2.4.0+cu121", True), ("2.3.1", False)])
def test_an_active_environment_with_an_old_pytorch_is_left_alone(
    env, modules, monkeypatch, capsys, found, ready
):
    modules("torch", "detectron2")
    monkeypatch.setattr("importlib.metadata.version", lambda name: found)
    assert env.is_active_ready() is ready
    assert ("older than 2.4: using .venv" in capsys.readouterr().out) is not ready
    needed = "torch>={}.{}".format(*env.MIN_TORCH)
    assert needed in (REPOSITORY / "setup.cfg").read_text()


def test_own_venv_is_not_taken_for_the_users(env, modules, monkeypatch) -> None:
    modules("torch", "detectron2")
    env.VENV.mkdir()
    monkeypatch.setattr(sys, "prefix", str(env.VENV))
    assert env.is_active_ready()
    (env.VENV / env.STAMP).write_text("")
    assert not env.is_active_ready()


def test_active_environment(env, steps, monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr(env, "is_active_ready", lambda: True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("ACTIVE", "1")
    (env.ROOT / "requirements.txt").write_text("# Group\n\npytest==0.1\nno-such-thing==1.2\n")
    assert env.main([]) == 1 and "has no pip: install it" in capsys.readouterr().err
    monkeypatch.setattr(env, "succeeds", lambda *command: "pip" in command)
    assert env.main([]) == 0
    missing, project = steps
    assert missing.startswith(f"{sys.executable} -m pip install --constraint ")
    assert missing.endswith(".txt no-such-thing<=1.2")
    assert project == f"{sys.executable} -m pip install --no-deps --no-build-isolation -e ."
    assert not env.VENV.exists()
    assert env.main([]) == 0
    assert len(steps) == 2


def test_active_environment_that_lacks_nothing_is_left_alone(env, steps, monkeypatch, tmp_path):
    monkeypatch.setattr(env, "is_active_ready", lambda: True)
    monkeypatch.setattr(env, "what_active_lacks", list)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "active"))
    assert env.main([]) == 0
    assert not steps and not (tmp_path / "active").exists() and not env.VENV.exists()


@pytest.mark.parametrize("answer", [None, "", "n", "y"])
def test_active_environment_is_changed_only_after_a_question(
    env, steps, monkeypatch, tmp_path, capsys, answer
):
    active = tmp_path / "active"
    active.mkdir()
    monkeypatch.setattr(env, "is_active_ready", lambda: True)
    monkeypatch.setattr(env, "what_active_lacks", lambda: ["this project"])
    monkeypatch.setattr(env, "succeeds", lambda *command: "pip" in command)
    monkeypatch.setattr(sys, "prefix", str(active))
    monkeypatch.delenv("ACTIVE", raising=False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: answer is not None, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert env.main([]) == 0
    assert env.VENV.exists() == (answer != "y")
    assert bool(list(active.iterdir())) == (answer == "y")
    if answer is None:
        assert "lacks this project and stays as it is (ACTIVE=1" in capsys.readouterr().out


def test_another_copy_of_the_project_is_not_this_one(env, monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("m", str(tmp_path.parent / "elsewhere.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert env.what_active_lacks() == ["this project"]
    here = importlib.util.spec_from_file_location("m", str(env.ROOT / "m" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: here)
    assert env.what_active_lacks() == []


def test_help(env, capsys):
    assert env.main(["--help"]) == 0
    assert "python3 tools/env.py -m pytest" in capsys.readouterr().out


def test_split_requirements(env, modules) -> None:
    modules("cv2")
    text = 'pytest==0.1\nopencv-python-none==5.0\nno-such-thing==1.2; python_version >= "3.11"\n'
    missing, present = env.split_requirements(text)
    assert missing == ['no-such-thing<=1.2; python_version >= "3.11"']
    assert present == [f"pytest=={pytest.__version__}"]


def test_repack_wheel(env, tmp_path) -> None:
    target = tmp_path / "clean.whl"
    env.repack_wheel(make_wheel(tmp_path), target)
    info = "sal_detectron2-0.7.2.dist-info"
    with zipfile.ZipFile(target) as archive:
        names = archive.namelist()
        record = archive.read(f"{info}/RECORD").decode().splitlines()
    kept = ["detectron2/__init__.py", "detectron2/tools/__init__.py"]
    assert names == [*kept, *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD"))]
    assert [line.split(",")[0] for line in record] == names


def test_hash_of_wheel(env, monkeypatch, tmp_path) -> None:
    # In a process of its own: what imports pip cannot import setuptools afterwards.
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip("this Python has no pip")
    wheel = make_wheel(tmp_path)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (tmp_path / "wrong").mkdir()
    with pytest.raises(env.SetupError, match="not the pinned file"):
        env.download_wheel(sys.executable, tmp_path / "wrong")
    assert list((tmp_path / "wrong").glob("*.whl")) == []

    (tmp_path / "right").mkdir()
    monkeypatch.setattr(env, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert env.download_wheel(sys.executable, tmp_path / "right").name == wheel.name
