"""The four strategies: which quality ranks the candidates of each task."""

from typing import NamedTuple


class Strategy(NamedTuple):
    """Names of the qualities that rank the candidates of a ground truth, per task."""

    classification: str
    localisation: str


STRATEGIES: dict[str, Strategy] = {
    "static": Strategy("prior", "prior"),
    "localize_to_classify": Strategy("regressed", "prior"),  # Sec. 3.1
    "classify_to_localize": Strategy("prior", "amplified"),  # Sec. 3.2
    "mutual_guidance": Strategy("regressed", "amplified"),
}
