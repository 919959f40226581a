#!/usr/bin/env python3
"""
Run the commands of the README and of the pages as a reader would, on the drawn data set.

    python tools/try_pages.py                            # trainings cut to a few iterations
    python tools/try_pages.py README.md docs/predict.md  # these pages only
    python tools/try_pages.py --whole --data ~/data      # as they stand, for hours; real data, too

Every page gets a fresh clone of the last commit. What it takes from an earlier page, models that
are trained there or photos, is made first. Commands for what is not here are left out, and named.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2

from mutual_guidance.arguments import Parser

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "projects/MutualGuidance/README.md", "docs/*.md")
PROGRAMS = re.compile(r"(?:[A-Z0-9_]+=\S+ )*(?:make|pip|python3?|torchrun)\s")
SHORT = (
    "SOLVER.EPOCHS 0.0 SOLVER.MAX_ITER 3 SOLVER.WARMUP_ITERS 1 SOLVER.IMS_PER_BATCH 4 "
    "SOLVER.REFERENCE_IMS_PER_BATCH 0 DATALOADER.NUM_WORKERS 0"
)
# What a command needs beyond the drawn data, by what it has in it.
NEEDS = {
    r"datasets/prepare_": "a download",
    r"\bcamera:": "a camera",
    r"--num-gpus [2-9]|--nproc-per-node": "several GPUs",
    r"\bpip |DETECTRON2=git": "an environment of its own",
}
LONG = {
    r"^make |tools/env\.py": "--whole: an environment of its own",
    r"experiment\.py(?!.*--dry-run)|output/experiments|model_zoo\.py|benchmark": "--whole: long",
}
DATA = {
    "BCCD": "BCCD|bccd",
    "NEU-DET": "NEU-DET|neu_det",
    "coco": "COCO|datasets/coco",
    "VOC2007": "--config-file configs/PascalVOC|voc_",
}
TRAIN = "python train_net.py --config-file configs/Shapes/retinanet_R_18.yaml"
CONFIG_OUTPUT = "output/Shapes/retinanet_R_18"
# The models that the README's commands leave behind, and what their training is told.
REPORTED = "VIS_PERIOD 100 TEST.MISALIGNMENT True MODEL.MUTUAL_GUIDANCE.STRATEGY"
MODELS = {
    "output/quickstart/static": f"{REPORTED} static",
    "output/quickstart/mutual_guidance": f"{REPORTED} mutual_guidance",
    "output/static": "MODEL.MUTUAL_GUIDANCE.STRATEGY static",
    CONFIG_OUTPUT: "",
}
THINGS = ("datasets/Shapes", "photos", "more", "one.jpg", "clip.mp4", "mine.yaml")


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("pages", nargs="*", help="default: the READMEs and all of docs/")
    parser.add_argument("--whole", action="store_true", help="neither shorten nor leave out")
    parser.add_argument("--data", type=Path, help="folder with BCCD, NEU-DET, coco or VOC2007")
    args = parser.parse_args()
    pages = args.pages or [str(p.relative_to(ROOT)) for g in PAGES for p in sorted(ROOT.glob(g))]
    for page in pages:
        if not (ROOT / page).is_file():
            parser.error(f"there is no page {page}")
    with tempfile.TemporaryDirectory() as folder:
        reader = Reader(Path(folder), args.whole, args.data)
        results = [result for page in pages for result in reader.read(page)]
    failed = sum(result.startswith("failed") for result in results)
    left_out = sum(result.startswith("left out") for result in results)
    print(f"{len(results)} commands, {left_out} left out, {failed} failed")
    sys.exit(bool(failed))


def commands(text: str) -> Iterator[str]:
    """The shell commands in the blocks of a page: continued lines joined, here-documents whole."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if language:
            continue
        lines = iter(block.replace("\\\n", " ").splitlines())
        for line in lines:
            if not PROGRAMS.match(line):
                continue
            end = re.search(r"<<'(\w+)'", line)
            while end and not line.endswith(f"\n{end[1]}"):
                line += "\n" + next(lines)
            yield line if end else line.split(" #")[0].rstrip()


class Reader:
    """Reads page after page below ``folder``, each in a clone of its own."""

    def __init__(self, folder: Path, whole: bool, data: Path | None) -> None:
        self.folder, self.whole, self.data = folder, whole, data
        self.home = self.clone("home")  # what pages take from earlier ones is made here
        self.make("python datasets/draw_shapes.py")
        write_things(self.home)
        for model, opts in MODELS.items():
            self.make(f"{TRAIN} OUTPUT_DIR {model} {opts}")
        if not whole:  # the checkpoint of an iteration that a short training does not reach
            final = self.home / "output" / "static" / "model_final.pth"
            shutil.copy(final, final.with_name("model_0000299.pth"))

    def clone(self, name: str) -> Path:
        """The last commit, with the data sets that are at hand."""
        path = self.folder / name
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(path)], check=True)
        for data in DATA:
            if self.data and (self.data / data).is_dir():
                (path / "datasets" / data).symlink_to((self.data / data).resolve())
        return path

    def make(self, command: str) -> None:
        """Run in the home what has to succeed."""
        result = self.result(self.home, command)
        if result.startswith("failed"):
            sys.exit(f"{command}: {result}")

    def read(self, page: str) -> Iterator[str]:
        """The result of every command of a page, told as soon as it is known."""
        clone = self.clone(page.replace("/", "_"))
        for name in THINGS:
            copy(self.home / name, clone / name)
        for command in commands((ROOT / page).read_text()):
            needs = self.missing(command)
            if not needs:
                self.fetch_models(clone, command)
            result = f"left out: needs {needs}" if needs else self.result(clone, command)
            print(f"{page}: {command.splitlines()[0]}: {result}", flush=True)
            yield result

    def missing(self, command: str) -> str:
        """What the command needs and is not here; empty if nothing."""
        data = [name for name, names in DATA.items() if re.search(names, command)]
        absent = [name for name in data if not (self.home / "datasets" / name).exists()]
        needs = [need for pattern, need in NEEDS.items() if re.search(pattern, command)]
        if not self.whole:
            needs += [need for pattern, need in LONG.items() if re.search(pattern, command)]
        return " and ".join([*absent, *needs])

    def fetch_models(self, clone: Path, command: str) -> None:
        """Copy the models that the command names and does not train itself."""
        if "train_net.py" in command and "--eval-only" not in command:
            return
        for model in MODELS:
            if model in command or ("--resume" in command and model == CONFIG_OUTPUT):
                copy(self.home / model, clone / model)

    def result(self, folder: Path, command: str) -> str:
        """Run a command and say how it went."""
        if "train_net.py" in command and not self.whole:
            command = f"{command} {SHORT}"
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        package = str(folder / "projects" / "MutualGuidance")
        env = {**os.environ, "PATH": path, "PYTHONPATH": package}
        env.pop("DETECTRON2_DATASETS", None)
        start = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            return f"failed with {done.returncode}: " + "\n".join(done.stdout.splitlines()[-5:])
        return f"{time.monotonic() - start:.0f} s"


def copy(source: Path, target: Path) -> None:
    """A file or folder to where nothing is yet."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)


def write_things(home: Path) -> None:
    """What the pages take for granted: photos, a video, a config for data of one's own."""
    images = sorted((home / "datasets" / "Shapes" / "JPEGImages").glob("*.jpg"))[:4]
    for name in ("photos/a.jpg", "photos/b.jpg", "one.jpg"):
        copy(images[0], home / name)
    (home / "more").mkdir()
    cv2.imwrite(str(home / "more" / "c.png"), cv2.imread(str(images[1])))
    frames = [cv2.imread(str(path)) for path in images]
    height, width = frames[0].shape[:2]
    video = cv2.VideoWriter(
        str(home / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (width, height)
    )
    for frame in frames:
        video.write(frame)
    video.release()
    (config,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    no_download = 'MODEL: {WEIGHTS: ""}\n'
    (home / "mine.yaml").write_text(config.replace("~/mine", "Shapes") + no_download)


if __name__ == "__main__":
    main()
