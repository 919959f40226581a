"""Checkpoints, torchvision's ImageNet weights included."""

import os
import re
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling.backbone import ResNet
from detectron2.utils.file_io import PathHandler, PathManager
from torch import Tensor, hub, nn
from torchvision.models import get_model_weights

from .modeling import VGG16

_PREFIX = "torchvision://"
# torchvision's names of a ResNet's layers to Detectron2's, in this order.
_RESNET_NAMES = (
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}"),
    (r"downsample\.0", "shortcut"),
    (r"downsample\.1", "shortcut.norm"),
    (r"bn(\d)", r"conv\1.norm"),
)
_CLASSIFIER = re.compile(r"^(fc|classifier)\.")


class TorchvisionHandler(PathHandler):
    """torchvision://MODEL, torchvision's default ImageNet weights: hash checked and cached."""

    def _get_supported_prefixes(self) -> list[str]:
        return [_PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        weights = get_model_weights(path[len(_PREFIX) :]).IMAGENET1K_V1
        folder = os.path.join(hub.get_dir(), "checkpoints")
        file = os.path.join(folder, os.path.basename(weights.url))
        if not os.path.isfile(file):
            try:
                weights.get_state_dict(progress=True, check_hash=True)
            except OSError as error:
                raise OSError(
                    f"{path}: {weights.url} cannot be fetched ({error}); without a network, put "
                    f'the file into {folder} or set MODEL.WEIGHTS to "" or to a local file'
                ) from error
        return file


PathManager.register_handler(TorchvisionHandler(), allow_override=True)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's, which also recognises torchvision's ResNet and VGG weights and renames them."""

    def _load_file(self, filename: str) -> dict[str, Any]:
        loaded = super()._load_file(filename)
        if is_torchvision(loaded["model"]):
            loaded["model"] = rename_torchvision(loaded["model"], self.model)
        return loaded


def is_torchvision(state_dict: dict[str, Tensor]) -> bool:
    """Whether the weights are those of torchvision's ResNet or VGG."""
    return any(_CLASSIFIER.match(name) for name in state_dict)


def rename_torchvision(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """
    Rename torchvision's weights to those of the trunk in ``model``; the classifier is left out.

    Raises:
        ValueError: the model has neither trunk.
    """
    trunks = [(n, m) for n, m in model.named_modules() if isinstance(m, ResNet | VGG16)]
    if not trunks:
        raise ValueError("torchvision's weights fit a ResNet or VGG16 trunk; the model has none")
    prefix, trunk = trunks[0]
    names = {name: name for name in state_dict if not _CLASSIFIER.match(name)}
    if isinstance(trunk, ResNet):
        for pattern, replacement in _RESNET_NAMES:
            names = {old: re.sub(pattern, replacement, new) for old, new in names.items()}
    return {f"{prefix}.{new}".lstrip("."): state_dict[old] for old, new in names.items()}
