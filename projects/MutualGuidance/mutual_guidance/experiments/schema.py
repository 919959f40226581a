"""The keys of an experiment's YAML file, checked; see docs/experiments.md."""

import re
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from ..documents import read_yaml
from ..errors import ExperimentError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LONG = "long"
BASELINE = "static"
# The name of the runs from whose weights the others of a seed go on.
START = "start"
# Which runs are compared, with the baseline's.
PLACE = ("config", "variant", "strategy")
# What is decided before the runs. The grid, too: more of it until an interval leaves 0 would decide
# anything.
PLANNED = ("primary", "decision", "secondary", "seeds", "protocols", "folds")
# Metrics of the tables, the second ones where runs have them.
COMPARED = ("AP", "AP50", "AP75")
SIZES = ("APs", "APm", "APl")


def read_experiment(path: Path) -> dict[str, Any]:
    """
    Read and check an experiment's file.

    Returns:
        The mapping with its defaults. "variants" begins with the plain grid, whose name is "".

    Raises:
        ExperimentError: the file is missing or no YAML, or a key or value does not fit.
    """
    try:
        raw = read_yaml(path)
    except FileNotFoundError as error:
        from ..typed import nearest_path  # which waits for PyTorch

        raise ExperimentError(f"there is no file {path}{nearest_path(str(path))}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ExperimentError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        return _checked(raw)
    except ValueError as error:
        raise ExperimentError(f"{path}: {error}") from error


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
        "primary": _primary,
        "decision": _decision,
        "secondary": _secondary,
    }
    raw = _mapping(raw, "the file", known)
    for key in ("configs", "strategies", "seeds"):
        if key not in raw:
            raise ValueError(f"{key} is missing; docs/experiments.md lists the keys")
    defaults = {"folds": {}, "overrides": {}, "variants": [], "paper": {}}
    defaults.update({"protocols": {_LONG: {}}, "primary": {}, "decision": {}, "secondary": []})
    raw = {key: known[key](value, key) for key, value in {**defaults, **raw}.items()}
    whole_grid = {"name": "", "overrides": {}, **{k: raw[k] for k in ("configs", "strategies")}}
    variants = [_variant(v, raw) for v in raw["variants"]]
    _unique([v["name"] for v in variants], "the names of the variants")
    places = [config_place(c) / v["name"] for v in (whole_grid, *variants) for c in v["configs"]]
    _unique(list(map(str, places)), "the folders of configs and variants")
    others = [c for c in raw["paper"].get("figures", {}) if c not in raw["configs"]]
    if others:
        raise ValueError(f"paper.figures: {others[0]} is not among the experiment's configs")
    raw["variants"] = [whole_grid, *variants]
    _check_weights_are_the_starts(raw)
    if raw["folds"]:
        _check_data_is_the_folds(raw)
    if raw["primary"] or raw["decision"] or raw["secondary"]:
        _check_questions(raw)
    return raw


def _check_weights_are_the_starts(raw: dict[str, Any]) -> None:
    """Raise ValueError for weights that those of a start would replace."""
    of_variants = [variant["overrides"] for variant in raw["variants"]]
    for name, stage in raw["protocols"].items():
        replaced = [stage.get("overrides", {}), *of_variants] if START in stage else []
        if any("MODEL.WEIGHTS" in overrides for overrides in replaced):
            raise ValueError(
                f"protocols.{name}: its start's weights would replace MODEL.WEIGHTS of its "
                f"overrides or of a variant; set it in protocols.{name}.start, or leave it out"
            )


def _check_data_is_the_folds(raw: dict[str, Any]) -> None:
    """Raise ValueError for overrides of what the folds make."""
    stages = [stage for protocol in raw["protocols"].values() for stage in protocol.values()]
    stages += [raw["overrides"], *(variant["overrides"] for variant in raw["variants"])]
    for key in (f"DATASETS.{name}" for name in ("REGISTER", "TRAIN", "TEST")):
        if any(key in stage for stage in stages):
            raise ValueError(f"folds: they make the data sets, which {key} would replace")


def _check_questions(raw: dict[str, Any]) -> None:
    """Complete the comparisons with what they leave out, and look whether the grid makes them."""
    if not (raw["primary"] and raw["decision"]):
        raise ValueError("primary and decision stand together, with secondary or without")
    if len(raw["protocols"]) != 1:
        raise ValueError("primary: which protocol is meant? An experiment with it has one")
    if len(raw["seeds"]) < 2:
        raise ValueError("primary: one seed tells nothing of other trainings; give two or more")
    primary = {"config": raw["configs"][0], "variant": "", **raw["primary"]}
    inherited = {key: primary[key] for key in PLACE}
    raw["primary"] = primary
    raw["secondary"] = [{**inherited, **question} for question in raw["secondary"]]
    for question in (primary, *raw["secondary"]):
        variants = [v for v in raw["variants"] if v["name"] == question["variant"]]
        made = any(
            question["config"] in v["configs"] and question["strategy"] in v["strategies"]
            for v in variants
        )
        has_baseline = any(BASELINE in v["strategies"] for v in (*variants, raw["variants"][0]))
        if question["strategy"] == BASELINE or not (made and has_baseline):
            raise ValueError(f"the grid does not compare {question} with {BASELINE}")


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
        return isinstance(v, str) and v.endswith((".yaml", ".yml"))

    _items(value, what, fits, "files such as configs/BCCD/fssd_R_18.yaml")
    _unique([str(config_place(v)) for v in value], f"the folders of {what}")
    return value


def config_place(config: str) -> Path:
    """Of the folder of a config's runs: its path without configs/, suffix, and what leads up."""
    parts = Path(config).with_suffix("").parts
    parts = [p for p in parts if p not in (Path(config).anchor, "..", "~")]
    return Path(*parts[parts[0] == "configs" :])


def _strategy_names() -> list[str]:
    """Of the strategies there are; who only formats results need not wait for PyTorch."""
    from ..assignment import STRATEGIES

    return list(STRATEGIES)


def _strategies(value: Any, what: str) -> list[str]:
    def fits(v: Any) -> bool:
        return isinstance(v, str) and v in _strategy_names()

    return _items(value, what, fits, f"some of {', '.join(_strategy_names())}")


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
    if name in (START, *_strategy_names()):
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
    known = (*COMPARED, *SIZES)
    unknown = [metric for metric in metrics if metric not in known]
    if unknown:
        raise ValueError(
            f"{what}.metrics: no table has {unknown[0]}; choose from {', '.join(known)}"
        )
    if not isinstance(value.get("source"), str):
        raise ValueError(f"{what}.source must say which table of the paper it is")
    for config, figures in _mapping(value.get("figures"), f"{what}.figures").items():
        for strategy, row in _mapping(
            figures, f"{what}.figures.{config}", _strategy_names()
        ).items():
            numbers = [v for v in _list(row, f"{what}.figures.{config}.{strategy}") if _number(v)]
            if not len(row) == len(numbers) == len(metrics):
                raise ValueError(
                    f"{what}.figures.{config}.{strategy} must have numbers for {metrics}, got {row}"
                )
    return value


def _primary(value: Any, what: str) -> dict[str, Any]:
    """An empty mapping is none."""
    if not value:
        return _mapping(value, what)
    _question(value, what, ("claim", "metric", "classes", *PLACE))
    if not isinstance(value.get("claim"), str) or "strategy" not in value:
        raise ValueError(f"{what} needs a claim in words and a strategy, got {value}")
    if not value["metric"].startswith("AP"):
        raise ValueError(f"{what}: the paper's gain is of AP, not of {value['metric']}")
    _items(
        value.get("classes"), f"{what}.classes", lambda v: isinstance(v, str), "those in the mean"
    )
    return value


def _secondary(value: Any, what: str) -> list[dict[str, Any]]:
    for question in _list(value, what):
        _question(question, what, ("metric", *PLACE))
    return value


def _question(value: Any, what: str, known: tuple[str, ...]) -> None:
    texts = [key for key in _mapping(value, what, known) if key != "classes"]
    if "metric" not in value or not all(isinstance(value[key], str) for key in texts):
        raise ValueError(f"{what} needs a metric such as AP75, and words for the rest, got {value}")


def _decision(value: Any, what: str) -> dict[str, float]:
    """An empty mapping is none."""
    gain = _mapping(value, what, ("paper_gain",)).get("paper_gain")
    if value and not (_number(gain) and gain > 0):
        raise ValueError(f"{what}.paper_gain must be in percent of static's, above 0, got {gain!r}")
    return value


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
