"""The detectors that differ from :class:`GuidedRetinaNet` by their pyramid alone."""

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY

from ..backbone import FSSDPyramid, RFBPyramid
from .guided_retinanet import GuidedRetinaNet


@META_ARCH_REGISTRY.register()
class FSSD(GuidedRetinaNet):
    """FSSD (https://arxiv.org/abs/1712.00960): the fused pyramid, without a top-down path."""

    @configurable
    def __init__(self, *, backbone: FSSDPyramid, **kwargs) -> None:
        """See :class:`GuidedRetinaNet`. Raises TypeError for another pyramid."""
        _check_pyramid(self, backbone, FSSDPyramid)
        super().__init__(backbone=backbone, **kwargs)


@META_ARCH_REGISTRY.register()
class RFBNet(GuidedRetinaNet):
    """RFBNet (https://arxiv.org/abs/1711.07767): a pyramid of receptive field blocks."""

    @configurable
    def __init__(self, *, backbone: RFBPyramid, **kwargs) -> None:
        """See :class:`GuidedRetinaNet`. Raises TypeError for another pyramid."""
        _check_pyramid(self, backbone, RFBPyramid)
        super().__init__(backbone=backbone, **kwargs)


def _check_pyramid(detector: GuidedRetinaNet, backbone: object, expected: type) -> None:
    if not isinstance(backbone, expected):
        raise TypeError(
            f"{type(detector).__name__} is built on a {expected.__name__}, but "
            f"MODEL.BACKBONE.NAME makes a {type(backbone).__name__}"
        )
