"""Texts and format of Matplotlib's figures, whatever a person's matplotlibrc says."""

import io
import os

import matplotlib
from matplotlib.figure import Figure

from .run_files import replace_file

# LaTeX may be absent, and takes an underscore in a name for an index.
NO_LATEX = {"text.usetex": False}
# Where labels are text from configs, data sets and folders, and no axis has Matplotlib's powers.
PLAIN_TEXT = {"text.parse_math": False, **NO_LATEX}


@matplotlib.rc_context(NO_LATEX)  # numbers at axes are made only now
def png_of(figure: Figure, dpi: int = 100) -> bytes:
    """A figure as the bytes of a PNG."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=dpi)
    return data.getvalue()


def write_png(path: str | os.PathLike, figure: Figure, dpi: int = 100) -> None:
    """Write a figure at once; raises OSError."""
    data = png_of(figure, dpi)
    replace_file(path, lambda f: f.write(data))
