import matplotlib
from PIL import Image

from mutual_guidance.figures import write_png
from mutual_guidance.visualization.paper import draw_amplification


def test_a_persons_matplotlibrc_changes_neither_format_nor_letters(tmp_path):
    # Numbers at axes, too, would go to LaTeX, which may be absent.
    with matplotlib.rc_context({"savefig.format": "pdf", "text.usetex": True}):
        write_png(tmp_path / "a.png", draw_amplification([1.0]))
    assert Image.open(tmp_path / "a.png").format == "PNG"
