"""From an experiment's YAML file to its cells, the runs of train_net.py."""

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..assignment import STRATEGIES
from ..data.folds import PARTS
from ..errors import ExperimentError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LONG = "long"
BASELINE = "static"
# The name of the runs from whose weights the others of a seed go on.
START = "start"


class _UniqueKeys(yaml.SafeLoader):
    """Of a key that is given twice, PyYAML would drop the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.YAMLError(f"{key.value} is there twice, once{key.start_mark}")
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Cell:
    """One training: a point of the grid, or a start that the points of a seed have in common."""

    folder: Path  # output, relative to the project's root
    protocol: str
    config: str  # file, relative to the project's root
    variant: str  # "" for the overrides that all runs have
    strategy: str
    fold: int | None  # from 1; None without cross-validation
    seed: int
    settings: tuple[str, ...]  # KEY VALUE pairs on top of the config
    start: "Cell | None" = None  # must be finished first
    baseline: str | None = None  # the variant whose static run it is compared with

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


def load_experiment(path: Path, output: Path) -> Experiment:
    """
    Read an experiment, whose runs go below ``output`` / its name.

    Raises:
        ExperimentError: the file is missing or no YAML, or a key or value does not fit.
    """
    try:
        raw = yaml.load(path.read_text(), _UniqueKeys)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ExperimentError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        raw = _checked(raw)
    except ValueError as error:
        raise ExperimentError(f"{path}: {error}") from error
    return Experiment(path.stem, _cells(raw, output / path.stem), raw["paper"])


def _cells(raw: dict, output: Path) -> list[Cell]:
    cells: dict[Path, Cell] = {}
    # The plain grid before the variants. A seed of all configs before the next one, so that every
    # row of the table fills evenly; the strategies last, so that those that are compared run side
    # by side.
    grid = itertools.product(
        raw["variants"], raw["protocols"].items(), raw["seeds"], _folds(raw["folds"])
    )
    for variant, (protocol, stage), seed, (fold, data) in grid:
        run = Path(f"fold_{fold}" if fold else "", f"seed_{seed}")
        common = {**data, **raw["overrides"], "SEED": seed}
        for config in variant["configs"]:
            place = output / protocol / Path(*Path(config).with_suffix("").parts[1:])
            point = {"protocol": protocol, "config": config, "fold": fold, "seed": seed}
            start = None
            if START in stage:
                settings = _settings({**common, **stage[START]}, BASELINE)
                folder = place / START / run
                start = Cell(folder, variant=START, strategy=BASELINE, settings=settings, **point)
                start = cells.setdefault(folder, start)
            overrides = {**common, **stage.get("overrides", {}), **variant["overrides"]}
            for strategy in variant["strategies"]:
                folder = place / variant["name"] / strategy / run
                cells[folder] = Cell(
                    folder,
                    variant=variant["name"],
                    strategy=strategy,
                    settings=_settings(overrides, strategy),
                    start=start,
                    baseline=_baseline(variant, strategy, raw["strategies"]),
                    **point,
                )
    return list(cells.values())


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
        for part in PARTS
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


def _settings(overrides: dict[str, Any], strategy: str) -> tuple[str, ...]:
    """KEY VALUE pairs as the command line takes them."""
    overrides = {"MODEL.MUTUAL_GUIDANCE.STRATEGY": strategy, **overrides}
    return tuple(str(part) for pair in overrides.items() for part in pair)


def _checked(raw: Any) -> dict[str, Any]:
    """The mapping with its defaults. Raises ValueError with what is wrong."""
    known = {
        "configs": _configs,
        "strategies": _strategies,
        "seeds": _seeds,
        "folds": _checked_folds,
        "overrides": _overrides,
        "protocols": _protocols,
        "variants": _list,
        "paper": _paper,
    }
    raw = _mapping(raw, "the file", known)
    for key in ("configs", "strategies", "seeds"):
        if key not in raw:
            raise ValueError(f"{key} is missing; docs/experiments.md lists the keys")
    defaults = {"folds": {}, "overrides": {}, "variants": [], "paper": {}}
    defaults["protocols"] = {_LONG: {}}
    raw = {key: known[key](value, key) for key, value in {**defaults, **raw}.items()}
    whole_grid = {"name": "", "overrides": {}, **{k: raw[k] for k in ("configs", "strategies")}}
    variants = [_variant(v, raw) for v in raw["variants"]]
    _unique([v["name"] for v in variants], "the names of the variants")
    others = [c for c in raw["paper"].get("figures", {}) if c not in raw["configs"]]
    if others:
        raise ValueError(f"paper.figures: {others[0]} is not among the experiment's configs")
    return {**raw, "variants": [whole_grid, *variants]}


def _mapping(value: Any, what: str, known: Any = None) -> dict:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be a mapping of keys to values, got {value!r}")
    unknown = [k for k in value if known is not None and k not in known]
    if unknown:
        raise ValueError(f"{what} has an unknown key {unknown[0]!r}; known are {', '.join(known)}")
    return value


def _list(value: Any, what: str) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{what} must be a list, got {value!r}")
    return value


def _unique(values: list, what: str) -> list:
    if not all(values.count(v) == 1 for v in values):
        raise ValueError(f"{what} must not repeat, got {values}")
    return values


def _items(value: Any, what: str, fits: Callable[[Any], bool], kind: str) -> list:
    """A list without repetitions, not empty, whose items fit."""
    wrong = [v for v in _list(value, what) if not fits(v)]
    if wrong or not value:
        raise ValueError(f"{what} must list {kind}, got {wrong[0] if wrong else value!r}")
    return _unique(value, what)


def _configs(value: Any, what: str) -> list[str]:
    def fits(v: Any) -> bool:
        return isinstance(v, str) and Path(v).parts[:1] == ("configs",) and v.endswith(".yaml")

    return _items(value, what, fits, "files such as configs/BCCD/fssd_R_18.yaml")


def _strategies(value: Any, what: str) -> list[str]:
    def fits(v: Any) -> bool:
        return isinstance(v, str) and v in STRATEGIES

    return _items(value, what, fits, f"some of {', '.join(STRATEGIES)}")


def _seeds(value: Any, what: str) -> list[int]:
    return _items(value, what, lambda v: type(v) is int and v >= 0, "integers from 0 on")


def _checked_folds(value: Any, what: str) -> dict[str, Any]:
    """An empty mapping is none. What the data set's entry lacks is found where it is registered."""
    keys = ("number", "seed", "dataset")
    if not _mapping(value, what, keys):
        return value
    dataset = _mapping(value.get("dataset"), f"{what}.dataset")
    if not isinstance(dataset.get("name"), str) or dataset.get("format") != "voc":
        raise ValueError(f"{what}.dataset must be a VOC entry of DATASETS.REGISTER, got {dataset}")
    _items(
        dataset.get("split"), f"{what}.dataset.split", lambda v: isinstance(v, str), "its splits"
    )
    number, seed = (value.get(key) for key in keys[:2])
    if type(number) is not int or type(seed) is not int or number < 2:
        raise ValueError(f"{what} needs a number from 2 on and a seed, got {number!r} and {seed!r}")
    return value


def _overrides(value: Any, what: str) -> dict[str, Any]:
    reserved = ("SEED", "OUTPUT_DIR", "MODEL.MUTUAL_GUIDANCE.STRATEGY")
    for key, setting in _mapping(value, what).items():
        if not isinstance(key, str) or key in reserved:
            raise ValueError(f"{what} must not set {key}: the runner does")
        if setting is None or isinstance(setting, dict):
            raise ValueError(f"{what}: write {key} as one dotted key and its value")
    return value


def _protocols(value: Any, what: str) -> dict[str, dict]:
    if not _mapping(value, what):
        raise ValueError(f"{what} names no protocol; leave the key out for the config's schedule")
    checked = {}
    for name, stage in value.items():
        where = f"{what}.{_named(name, what)}"
        stage = _mapping(stage or {}, where, (START, "overrides"))
        checked[name] = {k: _overrides(v, f"{where}.{k}") for k, v in stage.items()}
    return checked


def _variant(value: Any, grid: dict[str, Any]) -> dict[str, Any]:
    value = _mapping(value, "a variant", ("name", "configs", "strategies", "overrides"))
    name = _named(value.get("name"), "variants")
    if name in (START, *STRATEGIES):
        raise ValueError(f"variants: {name} is no name for a variant, it means something else")
    configs = _configs(value.get("configs", grid["configs"]), f"variant {name}")
    others = [c for c in configs if c not in grid["configs"]]
    if others:
        raise ValueError(f"variant {name}: {others[0]} is not among the experiment's configs")
    return {
        "name": name,
        "configs": configs,
        "strategies": _strategies(value.get("strategies", grid["strategies"]), f"variant {name}"),
        "overrides": _overrides(value.get("overrides"), f"the overrides of variant {name}"),
    }


def _named(name: Any, what: str) -> str:
    """A name that can be a folder's."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"{what}: a name is letters, digits, '_', '-' and '.', got {name!r}")
    return name


def _paper(value: Any, what: str) -> dict[str, Any]:
    value = _mapping(value, what, ("source", "metrics", "figures"))
    if not value:
        return {}
    metrics = _items(
        value.get("metrics"), f"{what}.metrics", lambda v: isinstance(v, str), "names such as AP75"
    )
    if not isinstance(value.get("source"), str):
        raise ValueError(f"{what}.source must say which table of the paper it is")
    for config, figures in _mapping(value.get("figures"), f"{what}.figures").items():
        for strategy, row in _mapping(figures, f"{what}.figures.{config}", STRATEGIES).items():
            numbers = [v for v in _list(row, f"{what}.figures.{config}.{strategy}") if _number(v)]
            if not len(row) == len(numbers) == len(metrics):
                raise ValueError(
                    f"{what}.figures.{config}.{strategy} must have numbers for {metrics}, got {row}"
                )
    return value


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
