"""How Matplotlib's figures are drawn and written, whatever a person's matplotlibrc says."""

import io
import os

import matplotlib
from matplotlib.figure import Figure

from .run_files import replace_file

# Labels are text from configs, data sets and folders: never mathematics or LaTeX.
PLAIN_TEXT = {"text.parse_math": False, "text.usetex": False}


@matplotlib.rc_context(PLAIN_TEXT)  # numbers at axes are made only now
def png_of(figure: Figure, dpi: int = 100) -> bytes:
    """A figure as the bytes of a PNG."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=dpi)
    return data.getvalue()


def write_png(path: str | os.PathLike, figure: Figure, dpi: int = 100) -> None:
    """Write a figure at once; raises OSError."""
    data = png_of(figure, dpi)
    replace_file(path, lambda f: f.write(data))
