#!/usr/bin/env python3
"""Make the Python environment ready, then run its Python with the given arguments.

    python3 tools/env.py              # only make it ready
    python3 tools/env.py -m pytest    # make it ready, then run `python -m pytest` in it

An active environment that has PyTorch and Detectron2 is used as it is. What else it lacks is added
after a question, or with ACTIVE=1 in front of the command; it is never changed otherwise. In all
other cases .venv is made from requirements.txt, with a prebuilt Detectron2, or with the official
repository where DETECTRON2=git is in front. Once ready, a call takes a moment.
"""

# The standard library only, and nothing that Python 3.6 cannot parse or import: an old interpreter
# has to get as far as the sentence that says it is too old. Hence the quoted annotations.
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
INPUTS = ("requirements.txt", "setup.cfg", "pyproject.toml", "tools/env.py")
MIN_PYTHON = (3, 10)
MIN_TORCH = (2, 4)  # as in setup.cfg
DISK_GB = 10  # 6 stay, the rest is for the downloads, which pip's cache keeps besides

# The stamp is written last and holds the fingerprint of what the environment was made from. In
# .venv it exists, empty, from the start: this tells the script's .venv from one that a user made.
STAMP = "mutual-guidance.stamp"
ACTIVE_STAMP = "mutual-guidance-active.stamp"

# Detectron2's main branch of 2024 as a wheel. Its tag says CPython 3.10, but only for an extension
# that this project does not need.
WHEEL = "sal-detectron2==0.7.2"
WHEEL_SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
WHEEL_LEFT_OUT = re.compile(r"tools/|detectron2/_C\b.*\.so$")
REPOSITORY = "git+https://github.com/facebookresearch/detectron2.git"

# What a failed step prints, and what to do about it.
TROUBLES = (
    ("DO NOT MATCH THE HASHES", "it is not the pinned file, so check what serves your packages"),
    ("No space left on device", "the disk is full, so free some space or point TMPDIR elsewhere"),
    (
        "git clone|command 'git'",
        "the repository cannot be fetched, so check git and the network, or unset DETECTRON2",
    ),
    (
        "connection broken by|Read timed out|IncompleteRead",
        "the package index cannot be reached, so check the network and proxy and run this again",
    ),
    ("", "its last lines are above, so mend what they name and run this again"),
)


class SetupError(Exception):
    """What is wrong and what to do about it, in one sentence."""


def main(args: "list[str]") -> int:
    """Make the environment ready and become its Python where there are arguments."""
    if args in (["-h"], ["--help"]):
        print(__doc__.strip())
        return 0
    try:
        if sys.version_info < MIN_PYTHON:
            python = ready_venv()
        else:
            python = prepare()
            if python == str(VENV / "bin" / "python"):
                tell_other_python()
                tell_other_place()
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}: check the folder's permissions and free space.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted: run the same command again to continue.", file=sys.stderr)
        return 130
    if args:
        os.execv(python, [python, *args])
    return 0


def ready_venv() -> str:
    """The Python of a .venv that another Python has made, for one that is too old to make it."""
    python = str(VENV / "bin" / "python")
    if (VENV / STAMP).is_file() and (VENV / STAMP).read_text() == fingerprint(python):
        return python
    found = "{}.{}".format(*sys.version_info)
    raise SetupError(
        f"Python {found} is too old: install Python 3.10 or newer and name it, "
        "as in `make env PYTHON=python3.11`."
    )


def prepare() -> str:
    """Make the environment ready unless its stamp says that it is; return its Python."""
    active = is_active_ready() and may_use_active()
    if not active:
        check_foreign()
    python = sys.executable if active else str(VENV / "bin" / "python")
    stamp = Path(sys.prefix) / ACTIVE_STAMP if active else VENV / STAMP
    if stamp.is_file() and stamp.read_text() == fingerprint(python):
        return python
    if active and not what_active_lacks():
        return python
    if active:
        complete_active(python)
    else:
        build_venv(python, stamp)
    pip(python, "Installing the project", "install", "--no-deps", "--no-build-isolation", "-e", ".")
    try:
        stamp.write_text(fingerprint(python))
    except OSError:
        if not active:  # whose folder may be another's; the next call looks once more
            raise
    say(f"Ready: {python}")
    return python


def is_active_ready() -> bool:
    """Whether the calling Python has PyTorch and Detectron2 and is not this script's own .venv."""
    if Path(sys.prefix).resolve() == VENV.resolve() and (VENV / STAMP).exists():
        return False
    if not all(importlib.util.find_spec(name) for name in ("torch", "detectron2")):
        return False
    from importlib.metadata import PackageNotFoundError, version

    try:
        torch = version("torch")
    except PackageNotFoundError:  # of a checkout
        return True
    if tuple(map(int, re.findall(r"\d+", torch)[:2])) >= MIN_TORCH:
        return True
    needed = "{}.{}".format(*MIN_TORCH)
    say(
        f"The active environment {sys.prefix} has PyTorch {torch}, older than {needed}: using .venv"
    )
    return False


def may_use_active() -> bool:
    """Whether the active environment lacks nothing, or a person lets what it lacks be added."""
    stamp = Path(sys.prefix) / ACTIVE_STAMP
    lacks = what_active_lacks()
    if not lacks or os.environ.get("ACTIVE") == "1":
        return True
    if stamp.is_file() and stamp.read_text() == fingerprint(sys.executable):
        return True
    told = "The active environment {} lacks {}".format(sys.prefix, ", ".join(lacks))
    if sys.stdin.isatty():
        try:
            answer = input(f"{told}. Add it? (Otherwise .venv is made) [y/N] ")
        except EOFError:  # Ctrl-D
            answer = ""
        return answer.lower() in ("y", "yes")
    say(f"{told} and stays as it is (ACTIVE=1 would add it): using .venv")
    return False


def what_active_lacks() -> "list[str]":
    """The requirements that it lacks, and this project where it has none or another copy of it."""
    missing, _ = split_requirements((ROOT / "requirements.txt").read_text())
    spec = importlib.util.find_spec("mutual_guidance")
    origin = Path(getattr(spec, "origin", None) or "/")
    return missing if ROOT in origin.resolve().parents else [*missing, "this project"]


def fingerprint(python: str) -> str:
    """Hash what the environment depends on: inputs, place and Python version."""
    try:
        version = subprocess.check_output([python, "--version"])
    except (OSError, subprocess.CalledProcessError):
        version = b""
    digest = hashlib.sha256(version + os.fsencode(str(ROOT)))
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def check_foreign() -> None:
    """Raise where .venv has a PyTorch that is not of this script's doing."""
    look = "import importlib.util, sys; sys.exit(not importlib.util.find_spec('torch'))"
    if not (VENV / STAMP).exists() and succeeds(str(VENV / "bin" / "python"), "-I", "-c", look):
        raise SetupError(
            f"{VENV} has a PyTorch that making .venv could replace: give that environment another "
            "folder, or activate it, with a Detectron2 and a PyTorch of {}.{} or newer in it, and "
            "set ACTIVE=1 to add only what else it lacks.".format(*MIN_TORCH)
        )


def tell_other_python() -> None:
    """Say where .venv is of another Python than the calling one, which PYTHON may have named."""
    config = VENV / "pyvenv.cfg"
    text = config.read_text() if config.is_file() else ""
    found = re.search(r"^version = (\d+\.\d+)", text, re.M)
    called = "{}.{}".format(*sys.version_info)
    if found and found.group(1) != called:
        say(f".venv is of Python {found.group(1)}: remove it to have one of Python {called}")


def tell_other_place() -> None:
    """Say where .venv was made in another place, to which its activate and scripts still lead."""
    activate = VENV / "bin" / "activate"
    text = activate.read_text() if activate.is_file() and not VENV.is_symlink() else str(VENV)
    if (VENV / STAMP).exists() and str(VENV) not in text:
        say(".venv was made elsewhere, where its activate leads: remove it to have one made here")


def check_venv_modules() -> None:
    """Raise where the calling Python cannot make a virtual environment."""
    for name in ("venv", "ensurepip"):
        if importlib.util.find_spec(name) is None:
            raise SetupError(
                f"{sys.executable} has no module {name!r}: install it (on Debian and Ubuntu "
                "`apt install python{}.{}-venv`) and run this again.".format(*sys.version_info)
            )


def check_disk() -> None:
    """Raise where the project's disk has no room for the environment."""
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    if free < DISK_GB:
        raise SetupError(
            f"the environment needs about {DISK_GB} GB and {ROOT} has {free:.1f} GB left: "
            "free some space or move the project to a larger disk."
        )


def detectron2_source() -> str:
    """Read DETECTRON2: `wheel` (default) or `git`."""
    source = os.environ.get("DETECTRON2") or "wheel"
    if source not in ("wheel", "git"):
        raise SetupError(f"DETECTRON2={source} is unknown: set it to `wheel` or `git`.")
    return source


def build_venv(python: str, stamp: "Path") -> None:
    """Make .venv, or go on where an earlier call stopped."""
    source = detectron2_source()
    if not stamp.exists() and not has_package(python, "torch"):
        check_disk()
        say("A new environment takes 6 GB and some minutes")
    if not succeeds(python, "--version"):
        check_venv_modules()
        run("Creating .venv", sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV))
    stamp.write_text("")
    if not succeeds(python, "-m", "pip", "--version"):
        check_venv_modules()
        run("Installing pip", python, "-m", "ensurepip", "--default-pip")
    pip(python, "Installing the requirements", "install", "-r", "requirements.txt")
    if has_package(python, "detectron2", "sal-detectron2"):
        say("Using the Detectron2 that is installed")
    elif source == "git":
        step = f"Building Detectron2 from {REPOSITORY}"
        pip(python, step, "install", "--no-build-isolation", REPOSITORY)
    else:
        install_wheel(python)


def complete_active(python: str) -> None:
    """Add what the active environment lacks, and change nothing that it has."""
    say(f"Using the active environment in {sys.prefix}")
    missing, present = split_requirements((ROOT / "requirements.txt").read_text())
    if not succeeds(python, "-m", "pip", "--version"):
        raise SetupError(f"{sys.prefix} has no pip: install it (`uv pip install pip` with uv).")
    if not missing:
        return
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(present))
        step = "Installing the missing requirements"
        pip(python, step, "install", "--constraint", str(constraints), *missing)


def split_requirements(text: str) -> "tuple[list[str], list[str]]":
    """Split requirements into those that this Python lacks and `name==version` of the others.

    A missing one may be older than its pin, so that it fits what the environment has.
    """
    from importlib import metadata  # Python 3.8

    missing, present = [], []
    for line in text.splitlines():
        match = re.match(r"[\w.-]+", line)
        if match is None:
            continue
        name = match.group()
        module = "cv2" if name.startswith("opencv-") else name.replace("-", "_")
        try:
            present.append(f"{name}=={metadata.version(name)}")
        except metadata.PackageNotFoundError:
            if importlib.util.find_spec(module) is None:
                missing.append(line.replace("==", "<=", 1))
    return missing, present


def install_wheel(python: str) -> None:
    """Install the pinned wheel of Detectron2, less what would do harm."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = download_wheel(python, Path(folder))
        # Found by name rather than installed by path, which `pip freeze` would show for ever.
        clean = Path(folder) / "clean"
        clean.mkdir()
        repack_wheel(wheel, clean / wheel.name.replace("-cp310-", "-py3-"))
        source = ["--no-index", "--find-links", str(clean)]
        pip(python, f"Installing {WHEEL}", "install", "--no-deps", *source, WHEEL)


def download_wheel(python: str, folder: "Path") -> "Path":
    """Download the pinned wheel whatever this platform is; pip checks its hash."""
    pin = folder / "pin.txt"
    pin.write_text(f"{WHEEL} --hash=sha256:{WHEEL_SHA256}\n")
    tags = ["--python-version", "3.10", "--implementation", "cp", "--platform", "any"]
    options = ["--no-deps", "--only-binary=:all:", *tags, "--require-hashes"]
    pip(python, f"Downloading {WHEEL}", "download", *options, "-d", str(folder), "-r", str(pin))
    return next(folder.glob("*.whl"))


def repack_wheel(wheel: "Path", target: "Path") -> None:
    """Copy a wheel without its top-level package `tools` and its extension."""
    with zipfile.ZipFile(str(wheel)) as old, zipfile.ZipFile(str(target), "w") as new:
        for name in old.namelist():
            if WHEEL_LEFT_OUT.match(name):
                continue
            content = old.read(name)
            if name.endswith(".dist-info/RECORD"):
                lines = content.decode().splitlines(keepends=True)
                content = "".join(s for s in lines if not WHEEL_LEFT_OUT.match(s.split(",")[0]))
            new.writestr(name, content)


def pip(python: str, step: str, *args: str) -> None:
    """Run pip of an environment as one step."""
    run(step, python, "-m", "pip", *args)


def run(step: str, *command: str) -> None:
    """Announce and run a command; where it fails, show its last lines and raise."""
    say(step)
    # Progress bars are for terminals. Errors go to stderr, which is kept for the explanation.
    stdout = None if sys.stdout.isatty() else subprocess.DEVNULL
    result = subprocess.run(
        command, cwd=str(ROOT), stdout=stdout, stderr=subprocess.PIPE, errors="replace"
    )
    if result.returncode:
        print(*result.stderr.splitlines()[-12:], sep="\n", file=sys.stderr)
        remedy = next(text for pattern, text in TROUBLES if re.search(pattern, result.stderr))
        raise SetupError(f"{step} failed: {remedy}.")


def succeeds(*command: str) -> bool:
    """Whether a command runs and exits with 0, silently."""
    try:
        quiet = subprocess.DEVNULL
        return subprocess.call(command, stdout=quiet, stderr=quiet) == 0
    except OSError:
        return False


def has_package(python: str, *names: str) -> bool:
    """Whether an environment has any of these distributions."""
    return succeeds(python, "-m", "pip", "show", "--quiet", *names)


def say(step: str) -> None:
    """Print one line of progress."""
    print(f"==> {step}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
