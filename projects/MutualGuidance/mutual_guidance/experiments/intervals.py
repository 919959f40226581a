"""From the finished runs of an experiment to the intervals of its comparisons."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import MetadataCatalog
from tqdm import tqdm

from ..evaluation.detections import read_detections
from ..evaluation.ground_truth import ground_truths, load_records
from .bootstrap import DRAWS, compare, metrics, resample
from .grid import Cell, compared_cells
from .matches import Matches, match, pool, read_matches, write_matches
from .plan import Plan, is_drawn_from
from .records import MATCHES_FILE, detections_file, is_finished, read_record


class Intervals:
    """Draws from what the runs of an experiment found; those of a strategy once."""

    def __init__(self, root: Path, plans: dict[Cell, Plan], in_mean: Sequence[str]) -> None:
        """
        Args:
            root: of the project. in_mean: the classes of AP, AP50 and AP75 where a row has them
                all; elsewhere, and where it is empty, all of the row's are.
        """
        self._root = root
        self._plans = plans
        self._in_mean = in_mean
        self._drawn: dict[tuple[Cell, ...], dict] = {}

    def add(self, rows: Iterable[dict]) -> None:
        """
        Give each row of :func:`summarize` that has a baseline a "bootstrap", if all its runs and
        the baseline's have finished and left what they found: {"images": how many, "seeds": which,
        "draws", "in_mean": the classes, "rounding": the largest difference of AP, AP50 and AP75
        between what a run printed and what its matches give, "metrics": see :func:`compare`}. Where
        all have finished, but some have lost what they found, "unmatched" says how many.
        """
        # Of every finished run: what is kept of it has no detections to match later.
        matched = {cell for cell in self._plans if self._has_matches(cell)}
        for row in rows:
            guided, static = compared_cells(row, list(self._plans))
            runs = {*guided, *static} if guided and static else set()
            if not runs or not all(is_finished(self._root, cell) for cell in runs):
                continue
            if not matched.issuperset(runs):
                if all(is_drawn_from(self._test_set(cell)) for cell in runs):
                    row["unmatched"] = len(runs - matched)
                continue
            of_guided, of_static = self._draw(guided), self._draw(static)
            row["bootstrap"] = {
                **{key: of_guided[key] for key in ("images", "seeds", "in_mean")},
                "draws": DRAWS,
                "rounding": max(of_guided["rounding"], of_static["rounding"]),
                "metrics": compare(of_guided["metrics"], of_static["metrics"]),
            }

    def _has_matches(self, cell: Cell) -> bool:
        path = self._root / cell.folder / MATCHES_FILE
        if not is_finished(self._root, cell):
            return False
        if not path.is_file():
            _match(path.parent, self._test_set(cell), path)
        return path.is_file()

    def _test_set(self, cell: Cell) -> str:
        return self._plans[cell].config["DATASETS.TEST"][0]

    def _draw(self, cells: list[Cell]) -> dict:
        """Of the runs of a strategy."""
        if tuple(cells) not in self._drawn:
            self._drawn[tuple(cells)] = self._resample(cells)
        return self._drawn[tuple(cells)]

    def _resample(self, cells: list[Cell]) -> dict:
        by_seed: dict[int, list[list[Matches]]] = {}
        rounding = 0.0
        for cell in tqdm(cells, desc=f"Reading {cells[0].strategy}", leave=False):
            classes, matches = read_matches(self._root / cell.folder / MATCHES_FILE)
            by_seed.setdefault(cell.seed, []).append(matches)
            printed = read_record(self._root, cell)["metrics"]
            rounding = max(rounding, _rounding(printed, classes, matches))
        pooled = [pool(folds) for folds in by_seed.values()]
        has_all = set(self._in_mean) <= set(classes)
        in_mean = list(self._in_mean if self._in_mean and has_all else classes)
        return {
            "images": len(pooled[0][0].num_gts),
            "seeds": list(by_seed),
            "in_mean": in_mean,
            "rounding": round(rounding, 4),
            "metrics": resample(pooled, classes, in_mean),
        }


def _match(folder: Path, dataset: str, path: Path) -> None:
    """Of a run, where there are intervals over images and it has left what it found, whole."""
    source = detections_file(folder)
    if source is None or not is_drawn_from(dataset):
        return
    records = load_records(dataset)
    try:
        detections = read_detections(source)
        found = [detections[str(record.image_id)] for record in records]
    except (KeyError, ValueError):  # damaged, or of other images
        return
    classes = MetadataCatalog.get(dataset).thing_classes
    truths = [ground_truths(record) for record in records]
    write_matches(path, classes, match(truths, found, len(classes)))


def _rounding(printed: Mapping[str, float], classes: list[str], matches: list[Matches]) -> float:
    """How far AP of the matches is from what the run printed."""
    ours = metrics(matches, np.ones((1, len(matches[0].num_gts))), classes, classes)
    return max(abs(float(ours[name][0]) - printed[name]) for name in ("AP", "AP50", "AP75"))
