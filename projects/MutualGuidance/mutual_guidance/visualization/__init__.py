"""Pictures of what a detector learns from."""

from .assignments import compared_strategies, draw_assignments
from .film import Film
from .images import GroundTruthImage, first_annotated, load_image, with_ids
from .labelling import load_weights
from .qualities import CandidateRow, candidate_rows

# Below an output folder, by the hook and by tools/visualize_assignments.py.
ASSIGNMENTS_FOLDER = "visualization/assignments"

__all__ = [
    "ASSIGNMENTS_FOLDER",
    "CandidateRow",
    "Film",
    "GroundTruthImage",
    "candidate_rows",
    "compared_strategies",
    "draw_assignments",
    "first_annotated",
    "load_image",
    "load_weights",
    "with_ids",
]
