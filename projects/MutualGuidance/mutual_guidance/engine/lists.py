"""What the keys of a config that are lists may hold, which yacs does not ask."""

import itertools
import math
import reprlib
from collections.abc import Callable
from typing import NamedTuple

from detectron2.config import CfgNode

from ..data.faults import repeated
from ..errors import ConfigError, has_controls
from ..typed import value_of

_TOO_LARGE = 2**31


def check_lists(cfg: CfgNode) -> None:
    """Raise ConfigError for a list of other items, or of another number of them."""
    for key, (what, is_item, number) in _LISTS.items():
        value = value_of(cfg, key)
        is_list = isinstance(value, (list, tuple))
        if not is_list or len(value) not in number or not all(map(is_item, value)):
            raise ConfigError(f"{key} must be a list of {what}, got {reprlib.repr(value)}")
    tested = repeated(cfg.DATASETS.TEST)
    if tested:
        raise ConfigError(f"DATASETS.TEST names {', '.join(tested)} twice: name it once")
    if cfg.TEST.EXPECTED_RESULTS and len(cfg.DATASETS.TEST) != 1:
        raise ConfigError("TEST.EXPECTED_RESULTS are of one data set: name one in DATASETS.TEST")
    steps = cfg.SOLVER.STEPS
    if any(later <= earlier for earlier, later in itertools.pairwise((0, *steps))):
        raise ConfigError(f"SOLVER.STEPS must ascend from above 0, got {reprlib.repr(steps)}")
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if len(mean) != len(std) or len(mean) == 1 and cfg.INPUT.FORMAT != "L":
        raise ConfigError(
            "MODEL.PIXEL_MEAN and MODEL.PIXEL_STD must be 3 numbers each, or 1 each with "
            f"INPUT.FORMAT L, got {mean} and {std}"
        )


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) < _TOO_LARGE


def _is_positive(value: object) -> bool:
    return _is_number(value) and value > 0


def _is_level(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(map(_is_positive, value))
    return _is_positive(value)


def _is_whole(value: object) -> bool:
    return type(value) is int and 0 <= value < _TOO_LARGE


def _is_category_id(value: object) -> bool:
    return type(value) in (int, float, str)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not has_controls(value)


def _is_expected(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != 4:
        return False
    task, metric, expected, tolerance = value
    return task == "bbox" and _is_name(metric) and _is_number(expected) and _is_number(tolerance)


class _List(NamedTuple):
    what: str
    is_item: Callable[[object], bool]
    number: range = range(_TOO_LARGE)


_ONE_OR_MORE = range(1, _TOO_LARGE)
_NAMES = _List("names", _is_name)
_LEVELS = _List("numbers above 0, or of such lists", _is_level, _ONE_OR_MORE)
_LISTS = {
    "DATASETS.TRAIN": _NAMES,
    "DATASETS.TEST": _NAMES,
    "DATASETS.CLASSES": _NAMES,
    "DATASETS.CATEGORY_IDS": _List("numbers or texts", _is_category_id),
    "INPUT.MIN_SIZE_TRAIN": _List("whole numbers", _is_whole, _ONE_OR_MORE),
    "MODEL.ANCHOR_GENERATOR.SIZES": _LEVELS,
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": _LEVELS,
    "MODEL.PIXEL_MEAN": _List("3 numbers, or 1", _is_number, range(1, 4, 2)),
    "MODEL.PIXEL_STD": _List("3 numbers above 0, or 1", _is_positive, range(1, 4, 2)),
    "MODEL.RETINANET.BBOX_REG_WEIGHTS": _List("4 numbers above 0", _is_positive, range(4, 5)),
    "SOLVER.STEPS": _List("whole numbers", _is_whole),
    "TEST.EXPECTED_RESULTS": _List('["bbox", metric, percent, tolerance]', _is_expected),
}
