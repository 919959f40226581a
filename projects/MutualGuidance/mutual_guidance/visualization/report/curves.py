"""What the curves of a training are called, and what each of them says."""

import re

from ...evaluation.misalignment import MEASURES, STAGES

# Scalars that say nothing of what was learnt, and the AP of single classes, which are too many.
_NOT_DRAWN = re.compile(
    r"(last_|rank_)?(data_)?time|eta_seconds|(.*/)?AP-.*|(.*/)?misalignment/found_.*"
)
_TASKS = {"cls": "classification", "loc": "localisation"}
# Group of the page, pattern of a name, and the line that explains the curve, its {} filled with
# what the pattern finds in the name.
_MEANINGS = (
    ("Losses", r"total_loss", "Sum of all losses."),
    ("Losses", r"loss_(?:fcos_)?cls", "Focal loss of the class scores, for each positive."),
    ("Losses", r"loss_(?:box_reg|fcos_loc)", "Loss of the boxes, for each positive."),
    ("Losses", r"loss_fcos_ctr", "Loss of the predicted centerness."),
    ("Losses", r"lr", "Learning rate: the warm-up, then the schedule."),
    ("Test set", r"(?:.*/)?ema/.*AP(.*)", "AP{} of the moving average of the weights (EMA), in %."),
    (
        "Test set",
        r"(?:.*/)?AP",
        "Average precision, the mean over IoUs from 0.5 to 0.95, in %.",
    ),
    (
        "Test set",
        r"(?!ema/)(?:.*/)?AP(\d\d)",
        "Average precision at an IoU threshold of 0.{}, in %.",
    ),
    (
        "Test set",
        r"(?!ema/)(?:.*/)?AP(?:\d\d|[sml])?@(\d+)",
        "The same with the best {} detections of a class in an image instead of 100.",
    ),
    ("Test set", r"(?!ema/)(?:.*/)?AP([sml])", "AP of COCO's objects of size {}, in %."),
    ("Labels", r"assignment/agreement", "Share of the positives that both tasks have in common."),
    (
        "Labels",
        r"assignment/(cls|loc)_as_static",
        "Of the positives for {} by the strategy or by static, the share that is so by both.",
    ),
    ("Labels", r"assignment/(cls|loc)_positives_per_object", "Positives of an object for {}."),
    (
        "Labels",
        r"assignment/loc_positives_per_object_(small|medium|large)",
        "Positives of a {} object for localisation.",
    ),
    ("Labels", r"assignment/(cls|loc)_anchor_iou", "Mean IoU of an object and its anchors for {}."),
    ("Labels", r"assignment/(cls|loc)_centerness", "Mean centerness of an object's points for {}."),
    (
        "Labels",
        r"assignment/(cls|loc)_regressed_iou",
        "Mean IoU of an object and what is regressed from its positives for {}.",
    ),
    ("Labels", r"num_positives/(classification|localisation)", "Positives of an image for {}."),
    (
        "Misalignment",
        r"(?:.*/)?misalignment/suppressed",
        "Share of the objects whose best-localised prediction NMS takes away.",
    ),
    *(
        ("Misalignment", rf"(?:.*/)?misalignment/{key}_({stage})", f"{text}, {{}} NMS.")
        for key, text in MEASURES.items()
        for stage in STAGES
    ),
)
GROUPS = (*dict.fromkeys(group for group, _, _ in _MEANINGS), "Others")


def is_drawn(name: str) -> bool:
    """Whether a scalar is shown."""
    return not _NOT_DRAWN.fullmatch(name)


def meaning(name: str) -> tuple[str, str]:
    """The group of a scalar and the line that explains it, empty for one that is not known."""
    for group, pattern, line in _MEANINGS:
        found = re.fullmatch(pattern, name)
        if found:
            text = line.format(*(_TASKS.get(word, word) for word in found.groups()))
            return group, text[0].upper() + text[1:]
    return GROUPS[-1], ""


def rank(name: str) -> tuple[int, str]:
    """By group, and as explained there."""
    places = (i for i, (_, pattern, _) in enumerate(_MEANINGS) if re.fullmatch(pattern, name))
    return next(places, len(_MEANINGS)), name
