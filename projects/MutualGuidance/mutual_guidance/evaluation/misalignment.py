"""
Task misalignment: how much IoU is lost because the best-scored prediction of a ground truth is not
the best-localised one. The formulas are in docs/misalignment.md.

Shape symbols: P predictions and M ground truths of an image, G ground truths of the data set.
"""

import itertools
import json
import logging
import os
from typing import NamedTuple

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm
from tabulate import tabulate

from ..figures import write_png
from ..run_files import write_text
from .ground_truth import GroundTruths, class_ious, ground_truths, load_records
from .misalignment_plot import draw_misalignment

logger = logging.getLogger(__name__)

FOLDER = "misalignment"
# A prediction belongs to no ground truth below this IoU.
MIN_IOU = 0.1
# A rank correlation of fewer predictions says nothing.
MIN_RANKED = 3
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
NUM_BINS = 20
STAGES = ("before", "after")
MEASURES = {
    "top_iou": "IoU of the best-scored prediction",
    "best_iou": "best IoU available",
    "iou_lost": "IoU lost to misalignment",
    "rank_correlation": "rank correlation of score and IoU",
}


class Alignment(NamedTuple):
    """Of each of M ground truths; NaN for one without predictions."""

    top_iou: np.ndarray  # (M,) IoU of its best-scored prediction
    best_iou: np.ndarray  # (M,) the best IoU among its predictions
    rank_correlation: np.ndarray  # (M,) in [-1, 1]; NaN below MIN_RANKED predictions as well


class MisalignmentEvaluator(DatasetEvaluator):
    """
    Measures misalignment before and after NMS. It needs outputs that hold "candidates": run the
    inference inside :func:`candidates_in_outputs`. Crowds and objects marked difficult own their
    predictions but are not measured.
    """

    def __init__(self, dataset_name: str, output_dir: str) -> None:
        """
        Args:
            dataset_name: a registered data set.
            output_dir: misalignment/<data set>.json and .png are written there.
        """
        self._dataset_name = dataset_name
        self._output_dir = output_dir
        self._ground_truths = {r.image_id: ground_truths(r) for r in load_records(dataset_name)}

    def reset(self) -> None:
        self._rows = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Raises ValueError for outputs without candidates."""
        for x, output in zip(inputs, outputs, strict=True):
            if "candidates" not in output:
                raise ValueError("no candidates: run the inference inside candidates_in_outputs")
            gts = self._ground_truths[x["image_id"]]
            self._rows.append(measure(output["candidates"], output["instances"], gts))

    def evaluate(self) -> dict | None:
        """
        Returns:
            {"misalignment": {metric: value}}: means over the ground truths, all between 0 and 1
            but the rank correlations; NaN where there is nothing to measure. None on all
            processes but the first.
        """
        gathered = comm.gather(self._rows, dst=0)
        if not comm.is_main_process():
            return None
        rows = list(itertools.chain.from_iterable(gathered))
        measured = {k: np.concatenate([row[k] for row in rows]) for k in rows[0]}
        details = summarize(self._dataset_name, measured)
        logger.info(
            f"Misalignment on {self._dataset_name}, "
            f"{details['num_gts']} ground truths:\n{misalignment_table(details)}"
        )
        self._save(details)
        return {"misalignment": metrics(details)}

    def _save(self, details: dict) -> None:
        stem = os.path.join(self._output_dir, FOLDER, self._dataset_name)
        os.makedirs(os.path.dirname(stem), exist_ok=True)
        write_text(f"{stem}.json", json.dumps(details, allow_nan=False))
        write_png(f"{stem}.png", draw_misalignment({self._dataset_name: details}))
        logger.info(f"Misalignment saved to {stem}.json and .png")


def measure(candidates: Instances, detections: Instances, gts: GroundTruths) -> dict:
    """
    Args:
        candidates: before NMS, with "kept". detections: after NMS. gts: of the same image.

    Returns:
        "<measure>_<stage>": (M,) of :class:`Alignment`, and "suppressed": (M,) 1, 0 or NaN; of the
        ground truths that count.
    """
    measured = {}
    for stage, predictions in zip(STAGES, (candidates, detections), strict=True):
        ious = class_ious(predictions, gts)
        alignment = align(ious, predictions.scores.cpu().double().numpy())
        measured |= {f"{k}_{stage}": v for k, v in alignment._asdict().items()}
    kept = class_ious(candidates[candidates.kept], gts)
    measured["suppressed"] = suppressed(measured["best_iou_before"], kept)
    return {k: v[gts.counted] for k, v in measured.items()}


def align(ious: np.ndarray, scores: np.ndarray) -> Alignment:
    """
    Args:
        ious: (P, M), 0 where the classes differ. scores: (P,).

    A prediction belongs to the ground truth that it overlaps most, from MIN_IOU on. Of equal
    scores the first prediction is the best-scored one.
    """
    num_preds, num_gts = ious.shape
    if num_preds == 0 or num_gts == 0:
        return Alignment(*np.full((3, num_gts), np.nan))
    owners = ious.argmax(axis=1)
    preds = (ious.max(axis=1) >= MIN_IOU).nonzero()[0]
    owned = np.zeros_like(ious, dtype=bool)
    owned[preds, owners[preds]] = True
    top = np.where(owned, scores[:, None], -np.inf).argmax(axis=0)
    found = owned.any(axis=0)
    return Alignment(
        top_iou=np.where(found, ious[top, np.arange(num_gts)], np.nan),
        best_iou=np.where(found, np.where(owned, ious, 0).max(axis=0), np.nan),
        rank_correlation=rank_correlations(
            scores[preds], ious[preds, owners[preds]], owners[preds], num_gts
        ),
    )


def suppressed(best_ious: np.ndarray, kept_ious: np.ndarray) -> np.ndarray:
    """
    Whether NMS took the best-localised prediction away, in favour of a worse one.

    Args:
        best_ious: (M,) before NMS. kept_ious: (P, M) of the predictions that NMS kept.

    Returns:
        (M,): 1 or 0, NaN for a ground truth without predictions before NMS.
    """
    best_kept = kept_ious.max(axis=0, initial=0)
    return np.where(np.isnan(best_ious), np.nan, best_kept < best_ious)


def rank_correlations(
    first: np.ndarray, second: np.ndarray, groups: np.ndarray, num_groups: int
) -> np.ndarray:
    """
    Spearman's rank correlation within each group, equal values sharing their mean rank.

    Args:
        first, second: (P,) values. groups: (P,) in [0, num_groups).

    Returns:
        (num_groups,); NaN for a group of fewer than MIN_RANKED or where all values are equal.
    """
    counts = np.bincount(groups, minlength=num_groups)
    a, b = (_centred_ranks(values, groups, counts) for values in (first, second))
    products = [np.bincount(groups, p, minlength=num_groups) for p in (a * b, a * a, b * b)]
    covariance, norm = products[0], np.sqrt(products[1] * products[2])
    defined = (counts >= MIN_RANKED) & (norm > 0)
    return np.where(defined, covariance / np.where(defined, norm, 1), np.nan)


def _centred_ranks(values: np.ndarray, groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(P,): the rank of each value in its group, less the group's mean rank."""
    order = np.lexsort((values, groups))
    pairs = np.stack((groups[order], values[order]))
    starts_run = np.append(True, (pairs[:, 1:] != pairs[:, :-1]).any(axis=0))[: len(values)]
    run = starts_run.cumsum() - 1
    positions = np.arange(len(values))
    ranks = np.empty(len(values))
    ranks[order] = (np.bincount(run, positions) / np.bincount(run))[run]
    means = np.bincount(groups, ranks, minlength=len(counts)) / np.maximum(counts, 1)
    return ranks - means[groups]


def summarize(dataset_name: str, measured: dict[str, np.ndarray]) -> dict:
    """
    Args:
        measured: as of :func:`measure`, (G,) each.

    Returns:
        What is saved: the share of ground truths with a prediction and the mean, quantiles and
        histogram of every measure, by stage; None for what is not defined.
    """
    details = {"dataset": dataset_name, "num_gts": len(measured["suppressed"])}
    for stage in STAGES:
        top, best = measured[f"top_iou_{stage}"], measured[f"best_iou_{stage}"]
        details[stage] = {
            "found": _mean(np.isfinite(top).astype(float)),
            "top_iou": _distribution(top),
            "best_iou": _distribution(best),
            "iou_lost": _distribution(best - top),
            "rank_correlation": _distribution(measured[f"rank_correlation_{stage}"], low=-1),
        }
    details["suppressed"] = _mean(measured["suppressed"])
    return details


def metrics(details: dict) -> dict[str, float]:
    """The means in what :func:`summarize` returns, "<measure>_<stage>" and "suppressed"."""
    means = {"suppressed": details["suppressed"]}
    for stage in STAGES:
        for name, value in details[stage].items():
            means[f"{name}_{stage}"] = value["mean"] if isinstance(value, dict) else value
    return {k: float("nan") if v is None else v for k, v in means.items()}


def misalignment_table(details: dict) -> str:
    """What :func:`summarize` returns, a column a stage."""
    rows = [["share with a prediction", *(details[s]["found"] for s in STAGES)]]
    for name, text in MEASURES.items():
        values = [details[s][name] for s in STAGES]
        rows.append([f"{text}, mean", *(v["mean"] for v in values)])
        rows.append([f"{text}, median", *(v["quantiles"].get("0.5") for v in values)])
    rows.append(["share whose best prediction NMS suppresses", None, details["suppressed"]])
    headers = ["of the ground truths", *(f"{s} NMS" for s in STAGES)]
    return tabulate(rows, headers, tablefmt="pipe", floatfmt=".3f")


def _mean(values: np.ndarray) -> float | None:
    """Of those that are not NaN."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _distribution(values: np.ndarray, low: float = 0.0) -> dict:
    """Of those that are not NaN: number, mean, quantiles and histogram over [low, 1]."""
    values = values[np.isfinite(values)].clip(low, 1)
    counts, edges = np.histogram(values, bins=NUM_BINS, range=(low, 1))
    return {
        "num": len(values),
        "mean": _mean(values),
        "quantiles": {f"{q}": float(np.quantile(values, q)) for q in QUANTILES if len(values)},
        "histogram": {"edges": edges.round(6).tolist(), "counts": counts.tolist()},
    }
