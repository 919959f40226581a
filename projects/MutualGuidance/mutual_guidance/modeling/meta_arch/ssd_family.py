"""The detectors that differ from :class:`GuidedRetinaNet` by their pyramid alone."""

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY

from ..backbone import FSSDPyramid, RFBPyramid
from ..backbone.layers import Pyramid
from .guided_retinanet import GuidedRetinaNet


class _OnPyramid(GuidedRetinaNet):
    """On a pyramid of its own kind alone."""

    pyramid: type[Pyramid]

    @configurable
    def __init__(self, *, backbone: Pyramid, **kwargs) -> None:
        """See :class:`GuidedRetinaNet`. Raises TypeError for another pyramid."""
        if not isinstance(backbone, self.pyramid):
            raise TypeError(
                f"{type(self).__name__} is built on a {self.pyramid.__name__}, but "
                f"MODEL.BACKBONE.NAME makes a {type(backbone).__name__}"
            )
        super().__init__(backbone=backbone, **kwargs)


@META_ARCH_REGISTRY.register()
class FSSD(_OnPyramid):
    """FSSD (https://arxiv.org/abs/1712.00960): the fused pyramid, without a top-down path."""

    pyramid = FSSDPyramid


@META_ARCH_REGISTRY.register()
class RFBNet(_OnPyramid):
    """RFBNet (https://arxiv.org/abs/1711.07767): a pyramid of receptive field blocks."""

    pyramid = RFBPyramid
