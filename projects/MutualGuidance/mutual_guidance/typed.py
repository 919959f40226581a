"""Keys and values as a person types them, made into those that a config takes."""

import ast
import difflib
import glob
import os
import re
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

from .errors import ConfigError

_ASSIGNMENT = re.compile(r"([A-Za-z_][\w.]*)=(.*)", re.DOTALL)
_BOOLS = {"true": True, "false": False}


def pairs_of(opts: Sequence[object]) -> list[tuple[str, object]]:
    """
    KEY VALUE and KEY=VALUE of a command line as pairs.

    Raises:
        ConfigError: a key without a value.
    """
    pairs, rest = [], list(opts)
    while rest:
        key = str(rest.pop(0))
        assignment = _ASSIGNMENT.fullmatch(key)
        if assignment:
            pairs.append((assignment[1], assignment[2]))
        elif rest:
            pairs.append((key, rest.pop(0)))
        else:
            raise ConfigError(f"{key} is followed by no value: keys are given as KEY VALUE")
    return pairs


def fit_pairs(pairs: Sequence[tuple[str, object]], cfg: CfgNode) -> list:
    """For ``merge_from_list``: the values are of the kinds that the config's own are of."""
    fitted = []
    for key, text in pairs:
        default = value_of(cfg, key)
        value = _parse(text) if isinstance(text, str) else text
        if isinstance(default, str) and isinstance(text, str):
            # In quotes, since it would be taken for the number that it may look like.
            value = repr(value if isinstance(value, str) else text)
        fitted += [key, _fit(value, default)]
    return fitted


def fit_values(values: dict, cfg: CfgNode) -> dict:
    """Nested values of a YAML in the same way."""
    return {
        key: fit_values(value, cfg[key])
        if isinstance(value, dict) and isinstance(cfg.get(key), CfgNode)
        else _fit(value, cfg.get(key))
        for key, value in values.items()
    }


def value_of(cfg: CfgNode, key: str) -> Any:
    """The value of a dotted key, None where there is none."""
    value: Any = cfg
    for part in key.split("."):
        if not isinstance(value, CfgNode) or part not in value:
            return None
        value = value[part]
    return value


def _parse(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _fit(value: Any, default: Any) -> Any:
    """A value of the kind of the default if it means one, else as it is."""
    if isinstance(default, bool):
        return _BOOLS.get(value.lower(), value) if isinstance(value, str) else value
    if isinstance(value, bool):
        return value
    if isinstance(default, float) and isinstance(value, int):
        return float(value)
    if isinstance(default, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(default, str) and isinstance(value, (int, float)):
        return str(value)
    if isinstance(default, (tuple, list)) and isinstance(value, (str, int, float)):
        return type(default)(_items(value))
    return value


def _items(value: str | float) -> list:
    """Of a sequence without its quotes or brackets, as a shell leaves it."""
    if not isinstance(value, str):
        return [value]
    return [_parse(item.strip()) for item in value.strip("()[] ").split(",") if item.strip()]


def nearest_path(path: str) -> str:
    """ "; did you mean ...?" for a file that is not there, from what lies about; else nothing."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(folder):
        others = [os.path.join(os.path.dirname(path), name) for name in sorted(os.listdir(folder))]
    else:
        above = os.path.dirname(folder) or "."
        pattern = os.path.join(glob.escape(above), "*", f"*{os.path.splitext(path)[1]}")
        others = sorted(os.path.normpath(p) for p in glob.glob(pattern))
    return did_you_mean(difflib.get_close_matches(path, others, cutoff=0.75))


def did_you_mean(names: Sequence[str]) -> str:
    """ "; did you mean ...?", nothing where there are no names."""
    return f"; did you mean {' or '.join(names)}?" if names else ""


def nearest_keys(unknown: str, known: Sequence[str]) -> list[str]:
    """Full keys that one that is not known may mean: its last parts, in any case, or alike."""
    lower = unknown.lower()
    same = [k for k in known if k.lower() == lower or k.lower().endswith(f".{lower}")]
    if same:
        return same
    alike = difflib.get_close_matches(unknown, known)
    last = {k.rpartition(".")[2]: k for k in known}
    return alike or [last[k] for k in difflib.get_close_matches(unknown.upper(), last)]
