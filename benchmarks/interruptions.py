"""
Kill and stop trainings at random moments, let them go on until they end, and compare what they
leave with what a training leaves that nothing interrupted.

    python benchmarks/interruptions.py --kills 40 --signals 40 --seed 0

trains a detector on drawn images for a few seconds, again and again, with one process, two, and
torchrun's two. It tells how many runs ended with other weights, momenta, results or files; and of
the signals, which went to the process or to its whole group, how long the last process took to end,
how many ended with another exit code than the shell's for the signal, and how many with a traceback
(torchrun has both of its own, so that only times count there).
"""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tabulate import tabulate

from mutual_guidance.arguments import Parser
from mutual_guidance.errors import run_main

ROOT = Path(__file__).resolve().parents[1]
# Its processes find each other where the machine's own name leads nowhere, too.
TORCHRUN = [
    "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1",
    "--nproc-per-node", "2",
]  # fmt: skip
LAUNCHERS = {"one": ([], ["--num-gpus", "1"]), "two": ([], ["--num-gpus", "2"]),
             "torchrun": (TORCHRUN, [])}  # fmt: skip
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
OPTS = [
    "DATALOADER.NUM_WORKERS", "1", "INPUT.SQUARE_SIZE", "64", "MODEL.PYRAMID.OUT_CHANNELS", "32",
    "SOLVER.EPOCHS", "0.0", "SOLVER.MAX_ITER", "30", "SOLVER.IMS_PER_BATCH", "4",
    "SOLVER.CHECKPOINT_PERIOD", "5", "SOLVER.EMA_DECAY", "0.9", "TEST.EVAL_PERIOD", "10",
    "TEST.PRECISE_BN.ENABLED", "True", "TEST.PRECISE_BN.NUM_ITER", "8", "VIS_PERIOD", "10",
]  # fmt: skip
EVENTS_A_RUN = 5
PATIENCE = 300.0  # seconds for a run or a stop


@dataclass
class Outcome:
    """Of all runs of one launcher."""

    kills: int = 0
    runs: int = 0
    different: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # of each stop
    wrong_codes: int = 0
    tracebacks: int = 0


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("--kills", type=int, default=40, help="by kill -9")
    parser.add_argument("--signals", type=int, default=40, help="SIGTERM, SIGINT or SIGHUP")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS))
    args = parser.parse_args()
    # As in a terminal, where nohup or a shell's & ignored them for all that is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    rng = random.Random(args.seed)
    events = [None] * args.kills + [rng.choice(SIGNALS) for _ in range(args.signals)]
    rng.shuffle(events)
    shares = [events[i :: len(args.launchers)] for i in range(len(args.launchers))]
    outcomes = {}
    with tempfile.TemporaryDirectory() as folder:
        data = draw(Path(folder))
        for launcher, share in zip(args.launchers, shares, strict=True):
            outcomes[launcher] = try_launcher(launcher, share, Path(folder) / launcher, data, rng)
    print(table(outcomes))


def draw(folder: Path) -> list[str]:
    """Draw a data set; the options that name it."""
    root = folder / "Shapes"
    drawing = ["--root", str(root), "--train", "8", "--test", "40", "--size", "64"]
    script = ROOT / "datasets" / "draw_shapes.py"
    subprocess.run([sys.executable, script, *drawing], check=True, capture_output=True)
    base = {"format": "voc", "root": str(root)}
    entries = [{**base, "name": f"drawn_{split}", "split": split} for split in ("train", "test")]
    return [
        "DATASETS.REGISTER", str(entries), "DATASETS.TRAIN", "('drawn_train',)",
        "DATASETS.TEST", "('drawn_test',)",
    ]  # fmt: skip


def try_launcher(
    launcher: str, events: list, folder: Path, data: list[str], rng: random.Random
) -> Outcome:
    """A run without events, then runs of some each until all have happened."""
    outcome = Outcome()
    begin = time.monotonic()
    if finish(start(launcher, folder / "straight", data)) != 0:
        raise RuntimeError(f"{launcher}: {(folder / 'straight.log').read_text()[-2000:]}")
    whole = time.monotonic() - begin
    events = list(events)
    for number in itertools.count():
        if not events:
            return outcome
        out = folder / str(number)
        for _ in range(EVENTS_A_RUN):
            if not events:
                break
            process = start(launcher, out, data)
            if ends_within(process, rng.uniform(0, whole)):
                break
            happen(process, events.pop(0), launcher, rng, outcome)
        compare(launcher, out, data, folder / "straight", outcome)


def start(launcher: str, out: Path, data: list[str]) -> subprocess.Popen:
    """Start or go on, in a process group of its own."""
    before, processes = LAUNCHERS[launcher]
    config = ["--config-file", "configs/Shapes/retinanet_R_18.yaml", "--resume"]
    command = [sys.executable, *before, "train_net.py", *processes, *config, *data, *OPTS]
    out.parent.mkdir(exist_ok=True)
    with open(f"{out}.log", "ab") as log:
        return subprocess.Popen(
            [*command, "OUTPUT_DIR", str(out)], cwd=ROOT, stdout=log, stderr=log,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip


def ends_within(process: subprocess.Popen, seconds: float) -> bool:
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False


def finish(process: subprocess.Popen) -> int:
    return process.wait(PATIENCE)


def happen(
    process: subprocess.Popen,
    number: signal.Signals | None,
    launcher: str,
    rng: random.Random,
    outcome: Outcome,
) -> None:
    """Kill the process and all below it, or send a signal and note how all of them end."""
    family = descendants(process.pid)
    if number is None:
        for pid in family:
            send(os.kill, pid, signal.SIGKILL)
        process.wait()
        wait_until_gone(family)
        outcome.kills += 1
        return
    log = Path(f"{process.args[-1]}.log")
    size = log.stat().st_size
    after = (log.read_text().strip().splitlines() or ["the start"])[-1]
    begin = time.monotonic()
    send(rng.choice((os.kill, os.killpg)), process.pid, number)
    code = process.wait(PATIENCE)
    wait_until_gone(family)
    outcome.seconds.append(time.monotonic() - begin)
    print(f"{number.name}, {outcome.seconds[-1]:.1f} s, after {after}", file=sys.stderr, flush=True)
    if launcher != "torchrun" and code != 0:  # it may just have ended
        outcome.wrong_codes += code not in (128 + number, -number)
        outcome.tracebacks += b"Traceback" in log.read_bytes()[size:]


def send(kill: Callable, pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has just ended
        kill(pid, number)


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):  # it has just ended
            continue
    family = [pid]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return family


def lives(pid: int) -> bool:
    """Not where it only waits for its new parent to take note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False


def wait_until_gone(family: list[int]) -> None:
    deadline = time.monotonic() + PATIENCE
    while any(map(lives, family)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"of the processes {family} some do not end")
        time.sleep(0.02)


def compare(launcher: str, out: Path, data: list[str], straight: Path, outcome: Outcome) -> None:
    """Let a run come to its end, and note what differs from the one that ran through."""
    code = finish(start(launcher, out, data))
    outcome.runs += 1
    if code:
        outcome.different.append(f"{out}: exit code {code}")
    else:
        outcome.different += [f"{out}: {what}" for what in differences(out, straight)]
    print(f"{launcher}: {outcome}", file=sys.stderr, flush=True)


def differences(out: Path, straight: Path) -> list[str]:
    """In weights, momenta, averages, results and files (but logs, whose names hold the time)."""
    # A stop writes a checkpoint of its own.
    if missing := sorted(files(straight) - files(out)):
        return missing
    found = []
    for name in ("model_final.pth", "model_ema_final.pth"):
        a, b = (torch.load(folder / name, weights_only=True) for folder in (out, straight))
        keys = a.keys() | b.keys()
        found += [f"{name}: {key}" for key in keys if not same(a.get(key), b.get(key))]
    for name in ("evaluation.json", "evaluation_ema.json"):
        a, b = (json.loads((folder / name).read_text()) for folder in (out, straight))
        found += [name] if a != b else []
    return found


def same(a: object, b: object) -> bool:
    """Nested states, equal bit for bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if torch.is_tensor(a) else a == b


def files(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in paths if not path.name.startswith(("events.", "log."))}


def table(outcomes: dict[str, Outcome]) -> str:
    rows = [
        (
            launcher, o.kills, len(o.seconds), o.runs, len(o.different),
            sum(o.seconds) / max(1, len(o.seconds)), max(o.seconds, default=0.0), o.wrong_codes,
            o.tracebacks,
        )
        for launcher, o in outcomes.items()
    ]  # fmt: skip
    headers = ("processes", "kills", "signals", "runs", "differences", "seconds to stop, mean",
               "at most", "other codes", "tracebacks")  # fmt: skip
    return tabulate(rows, headers, "pipe", floatfmt=".1f")


if __name__ == "__main__":
    run_main(main)
