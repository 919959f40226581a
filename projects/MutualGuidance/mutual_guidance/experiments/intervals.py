"""From the finished runs of an experiment to the intervals of its comparisons."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog

from ..evaluation.detections import read_detections
from ..evaluation.ground_truth import ground_truths, load_records
from .bootstrap import DRAWS, metrics, paired_bootstrap
from .grid import Cell
from .matches import Matches, match, pool, read_matches, write_matches
from .plan import Plan
from .records import MATCHES_FILE, detections_file, is_finished, read_record
from .schema import BASELINE

_Place = tuple[str, str, str, str]
# Of a cell that has finished, the classes and what was found of each.
_Found = dict[Cell, tuple[list[str], list[Matches]]]


def add_intervals(
    root: Path, plans: dict[Cell, Plan], rows: Iterable[dict], in_mean: Sequence[str]
) -> None:
    """
    Give each row of :func:`summarize` that has a baseline a "bootstrap", over the seeds that have
    finished with all their folds: {"images": how many, "seeds": which, "draws", "in_mean": the
    classes, "rounding": the largest difference of AP between what a run printed and what its
    matches give, "metrics": see :func:`paired_bootstrap`}.

    Args:
        in_mean: the classes of AP, AP50 and AP75; empty for all.
    """
    places: dict[_Place, dict[int, list[Cell]]] = {}
    for cell in plans:
        place = (cell.protocol, cell.config, cell.variant, cell.strategy)
        places.setdefault(place, {}).setdefault(cell.seed, []).append(cell)
    found: _Found = {}
    for row in rows:
        by_seed = places[row["protocol"], row["config"], row["variant"], row["strategy"]]
        variant = next(iter(by_seed.values()))[0].baseline
        if variant is None:
            continue
        others = places[row["protocol"], row["config"], variant, BASELINE]
        pairs = {seed: (cells, others[seed]) for seed, cells in by_seed.items() if seed in others}
        pairs = {
            seed: pair
            for seed, pair in pairs.items()
            if all(_find(root, cell, plans[cell], found) for cells in pair for cell in cells)
        }
        if pairs:
            row["bootstrap"] = _bootstrap(root, pairs, found, in_mean)


def _find(root: Path, cell: Cell, plan: Plan, found: _Found) -> bool:
    """Whether the cell has matches, then among the found ones."""
    path = root / cell.folder / MATCHES_FILE
    if not is_finished(root, cell):
        return False
    if not path.is_file():
        _match(root / cell.folder, plan.config["DATASETS.TEST"][0], path)
    if path.is_file() and cell not in found:
        found[cell] = read_matches(path)
    return cell in found


def _match(folder: Path, dataset: str, path: Path) -> None:
    """Of a run whose data set is evaluated as VOC's, with the area under the curve."""
    source, metadata = detections_file(folder), MetadataCatalog.get(dataset)
    if source is None or metadata.get("evaluator_type") != "pascal_voc":
        return
    if metadata.get("year") == 2007:
        return
    detections = read_detections(source)
    records = load_records(dataset)
    found = [detections[str(record.image_id)] for record in records]
    classes = metadata.thing_classes
    truths = [ground_truths(record) for record in records]
    write_matches(path, classes, match(truths, found, len(classes)))


def _bootstrap(
    root: Path,
    pairs: dict[int, tuple[list[Cell], list[Cell]]],
    found: _Found,
    in_mean: Sequence[str],
) -> dict:
    cells = [cell for pair in pairs.values() for of_strategy in pair for cell in of_strategy]
    classes = found[cells[0]][0]
    in_mean = list(in_mean or classes)
    guided, static = (
        [pool([found[cell][1] for cell in pair[i]]) for pair in pairs.values()] for i in (0, 1)
    )
    return {
        "images": len(guided[0][0].num_gts),
        "seeds": list(pairs),
        "draws": DRAWS,
        "in_mean": in_mean,
        "rounding": round(max(_rounding(root, cell, *found[cell]) for cell in cells), 4),
        "metrics": paired_bootstrap(guided, static, classes, in_mean),
    }


def _rounding(root: Path, cell: Cell, classes: list[str], matches: list[Matches]) -> float:
    """How far AP of the matches is from what the run printed."""
    printed = read_record(root, cell)["metrics"]
    ours = metrics(matches, np.ones((1, len(matches[0].num_gts))), classes, classes)
    return max(abs(float(ours[name][0]) - printed[name]) for name in ("AP", "AP50", "AP75"))
