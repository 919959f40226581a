from detectron2.config import LazyConfig, instantiate
from detectron2.model_zoo import get_config_file
from detectron2.modeling import build_backbone

from mutual_guidance.config import load_config
from tests.conftest import REPOSITORY


def test_the_pyramid_is_that_of_detectron2s_fcos():
    ours = build_backbone(load_config(REPOSITORY / "configs" / "detectors" / "fcos_R_50_FPN.yaml"))
    stock = LazyConfig.load(get_config_file("common/models/fcos.py")).model.backbone
    shapes = [
        {name: value.shape for name, value in model.state_dict().items()}
        for model in (ours, instantiate(stock))
    ]
    assert shapes[0] == shapes[1] and list(ours.output_shape()) == ["p3", "p4", "p5", "p6", "p7"]
