"""From an experiment's YAML file to its cells, the runs of train_net.py."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .schema import BASELINE, PLANNED, START, config_place, read_experiment


@dataclass(frozen=True)
class Cell:
    """One training: a point of the grid, or a start that the points of a seed have in common."""

    folder: Path  # output, relative to the project's root
    protocol: str
    config: str  # file, from the project's root
    variant: str  # "" for the overrides that all runs have
    strategy: str
    fold: int | None  # from 1; None without cross-validation
    seed: int
    settings: tuple[str, ...]  # KEY VALUE pairs on top of the config
    start: "Cell | None" = None  # must be finished first
    baseline: str | None = None  # the variant whose static run it is compared with

    @property
    def place(self) -> Path:
        """Of the run's folder, below the experiment's."""
        return run_place(vars(self))

    @property
    def opts(self) -> list[str]:
        """All KEY VALUE pairs of the run."""
        weights = (
            ["MODEL.WEIGHTS", str(self.start.folder / "model_final.pth")] if self.start else []
        )
        return [*self.settings, *weights, "OUTPUT_DIR", str(self.folder)]

    @property
    def arguments(self) -> list[str]:
        """Of Python, from the project's root."""
        return ["train_net.py", "--config-file", self.config, "--resume", *self.opts]


@dataclass(frozen=True)
class Experiment:
    """A grid of protocols x seeds x folds x configs x strategies; see docs/experiments.md."""

    name: str
    cells: list[Cell]  # a start before those that need it
    paper: dict[str, Any] = field(default_factory=dict)
    # What was decided before the runs: "primary", "decision" and "secondary"; or empty.
    questions: dict[str, Any] = field(default_factory=dict)


def run_place(run: Mapping[str, Any]) -> Path:
    """
    Where a run is put below its experiment's folder.

    Args:
        run: with the keys of a :class:`Cell`; "fold" may be missing.
    """
    fold = run.get("fold")
    return Path(
        run["protocol"],
        config_place(run["config"]),
        START if run["variant"] == START else Path(run["variant"], run["strategy"]),
        f"fold_{fold}" if fold else "",
        f"seed_{run['seed']}",
    )


def load_experiment(path: Path, output: Path) -> Experiment:
    """
    Read an experiment, whose runs go below ``output`` / its name.

    Raises:
        ExperimentError: as :func:`read_experiment`.
    """
    raw = read_experiment(path)
    questions = {key: raw[key] for key in PLANNED}
    cells = _cells(raw, output / path.stem)
    return Experiment(path.stem, cells, raw["paper"], questions if raw["primary"] else {})


def _cells(raw: dict, output: Path) -> list[Cell]:
    cells: dict[Path, Cell] = {}
    # The plain grid before the variants. A seed of all configs before the next one, so that every
    # row of the table fills evenly; the strategies last, so that those that are compared run side
    # by side.
    grid = itertools.product(
        raw["variants"], raw["protocols"].items(), raw["seeds"], _folds(raw["folds"])
    )
    for variant, (protocol, stage), seed, (fold, data) in grid:
        common = _layered(data, raw["overrides"], {"SEED": seed})
        for config in variant["configs"]:
            point = {"protocol": protocol, "config": config, "fold": fold, "seed": seed}
            start = None
            if START in stage:
                of_start = {**point, "variant": START, "strategy": BASELINE}
                folder = output / run_place(of_start)
                settings = _settings(_layered(common, stage[START]), BASELINE)
                start = cells.setdefault(folder, Cell(folder, settings=settings, **of_start))
            overrides = _layered(common, stage.get("overrides", {}), variant["overrides"])
            for strategy in variant["strategies"]:
                of_cell = {**point, "variant": variant["name"], "strategy": strategy}
                folder = output / run_place(of_cell)
                cells[folder] = Cell(
                    folder,
                    settings=_settings(overrides, strategy),
                    start=start,
                    baseline=_baseline(variant, strategy, raw["strategies"]),
                    **of_cell,
                )
    return list(cells.values())


def compared_cells(
    place: Mapping[str, str], cells: Sequence[Cell]
) -> tuple[list[Cell], list[Cell]]:
    """
    The cells of a comparison, and those of its baseline; none without a baseline.

    Args:
        place: "config", "variant" and "strategy", and "protocol" where there are several.
    """
    given = [key for key in ("protocol", "config", "variant", "strategy") if key in place]
    guided = [c for c in cells if all(getattr(c, key) == place[key] for key in given)]
    places = {(c.protocol, c.config, c.baseline) for c in guided if c.baseline is not None}
    others = [c for c in cells if c.strategy == BASELINE and c.variant != START]
    return guided, [c for c in others if (c.protocol, c.config, c.variant) in places]


def _folds(folds: dict[str, Any]) -> list[tuple[int | None, dict[str, Any]]]:
    """Of each fold its number and the overrides that make it the data; one None without folds."""
    if not folds:
        return [(None, {})]
    return [(fold, _fold_data(folds, fold)) for fold in range(1, folds["number"] + 1)]


def _fold_data(folds: dict[str, Any], fold: int) -> dict[str, Any]:
    dataset, number = folds["dataset"], folds["number"]
    split = {"of": dataset["split"], "folds": number, "seed": folds["seed"], "fold": fold}
    entries = {
        part: {
            **dataset,
            "name": f"{dataset['name']}_fold_{fold}_of_{number}_{part}",
            "split": {**split, "part": part},
        }
        for part in ("train", "test")
    }
    return {
        "DATASETS.REGISTER": list(entries.values()),
        "DATASETS.TRAIN": [entries["train"]["name"]],
        "DATASETS.TEST": [entries["test"]["name"]],
    }


def _baseline(variant: dict, strategy: str, plain_strategies: list[str]) -> str | None:
    """The variant's own static run where the grid has one, else that without a variant."""
    if strategy == BASELINE:
        return None
    if BASELINE in variant["strategies"]:
        return variant["name"]
    return "" if BASELINE in plain_strategies else None


def _layered(*layers: dict[str, Any]) -> dict[str, Any]:
    """All overrides, of which later ones win; iterations win over earlier epochs, as in configs."""
    merged: dict[str, Any] = {}
    for layer in layers:
        if "SOLVER.MAX_ITER" in layer and "SOLVER.EPOCHS" not in layer:
            merged.pop("SOLVER.EPOCHS", None)
        merged |= layer
    return merged


def _settings(overrides: dict[str, Any], strategy: str) -> tuple[str, ...]:
    """KEY VALUE pairs as the command line takes them."""
    overrides = {"MODEL.MUTUAL_GUIDANCE.STRATEGY": strategy, **overrides}
    return tuple(str(part) for pair in overrides.items() for part in pair)
