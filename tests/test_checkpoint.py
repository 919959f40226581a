import pytest
import torch
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import nn

from mutual_guidance.checkpoint import Checkpointer, TorchvisionHandler
from mutual_guidance.engine import load_config
from mutual_guidance.modeling import VGG16
from tests.conftest import REPOSITORY


def resnet18():
    config = REPOSITORY / "configs" / "PascalVOC-Detection" / "fssd_R_18.yaml"
    return build_resnet_backbone(load_config(str(config), []), ShapeSpec(channels=3))


def randomised(model: nn.Module) -> nn.Module:
    """With running statistics that are not those of a fresh BatchNorm."""
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return model.eval()


def load(trunk, reference, tmp_path, key=None):
    """Load the reference's weights from a file into a model around the trunk."""
    path = tmp_path / "weights.pth"
    torch.save(reference.state_dict() if key is None else {key: reference.state_dict()}, path)
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": trunk})})
    checkpointer = Checkpointer(model)
    reported = []
    checkpointer._log_incompatible_keys = reported.append
    checkpointer.load(str(path))
    (incompatible,) = reported
    assert incompatible.missing_keys == incompatible.unexpected_keys == []
    assert incompatible.incorrect_shapes == []
    return trunk.eval()


@torch.no_grad()
def test_resnet18_equals_torchvisions(tmp_path):
    reference = randomised(torchvision.models.resnet18())
    trunk = load(resnet18(), reference, tmp_path)
    image = torch.rand(1, 3, 64, 96)
    x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
    features = trunk(image)
    for i, name in enumerate(("layer1", "layer2", "layer3", "layer4"), start=2):
        x = getattr(reference, name)(x)
        if f"res{i}" in features:
            torch.testing.assert_close(features[f"res{i}"], x, atol=1e-5, rtol=1e-5)
    assert set(features) == {"res3", "res4", "res5"}


@torch.no_grad()
def test_vgg16_equals_torchvisions(tmp_path):
    reference = randomised(torchvision.models.vgg16_bn())
    trunk = load(VGG16(), reference, tmp_path)
    image = torch.rand(1, 3, 64, 96)
    features = trunk(image)
    # The maps before the fourth and the fifth pooling layer.
    for name, end in (("conv4_3", 33), ("conv5_3", 43)):
        assert isinstance(reference.features[end], nn.MaxPool2d)
        expected = reference.features[:end](image)
        torch.testing.assert_close(features[name], expected, atol=1e-5, rtol=1e-5)
        shape = trunk.output_shape()[name]
        assert features[name].shape == (1, shape.channels, 64 // shape.stride, 96 // shape.stride)


def test_weights_below_a_key_are_recognised(tmp_path):
    load(resnet18(), torchvision.models.resnet18(), tmp_path, key="model")


def test_model_without_a_trunk_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    with pytest.raises(ValueError, match="the model has none"):
        Checkpointer(nn.Linear(1, 1)).load(str(path))


def test_weights_that_cannot_be_fetched(monkeypatch, tmp_path):
    def refuse(self, *args, **kwargs):
        raise OSError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", refuse)
    with pytest.raises(OSError, match=r"resnet18-.*\.pth cannot be fetched \(no route\)"):
        TorchvisionHandler()._get_local_path("torchvision://resnet18")


def test_cached_weights_are_used(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    file = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"cached")
    assert TorchvisionHandler()._get_local_path("torchvision://resnet18") == str(file)
