"""Checkpoints: written whole or not at all, read without executing anything."""

import logging
import os
import re
import zipfile
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.resnet import BottleneckBlock
from detectron2.utils import comm
from detectron2.utils.file_io import PathHandler, PathManager
from torch import Tensor, hub, nn
from torchvision.models import get_model_weights

from .archives import archive_fault
from .errors import CheckpointError
from .modeling import VGG16
from .pickles import load_pickled_arrays
from .run_files import checkpoint_files, remedy, replace_file

_PREFIX = "torchvision://"
# torchvision's names of a ResNet's layers to Detectron2's, in this order.
_RESNET_NAMES = (
    (r"^(conv1|bn1)\.", r"stem.\1."),
    (r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}"),
    (r"downsample\.0", "shortcut"),
    (r"downsample\.1", "shortcut.norm"),
    (r"bn(\d)", r"conv\1.norm"),
)
_FIRST_LAYERS = frozenset({"conv1.weight", "features.0.weight"})
_CLASSIFIER = re.compile(r"^(fc|classifier)\.")
# Of the trunk's weights in what is loaded: of a ResNet-50, 56 % fit a ResNet-18.
_LEAST_SHARE = 0.75
logger = logging.getLogger(__name__)


class TorchvisionHandler(PathHandler):
    """torchvision://MODEL, torchvision's first ImageNet weights: hash checked and cached."""

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
                raise CheckpointError(
                    f"{path}: {weights.url} cannot be fetched ({error}); without a network, put "
                    f"the file into {folder} (TORCH_HOME names another), or set MODEL.WEIGHTS to a "
                    'local file or to ""'
                ) from error
        return file


PathManager.register_handler(TorchvisionHandler(), allow_override=True)


class Checkpointer(DetectionCheckpointer):
    """
    Detectron2's, with files that are replaced as a whole, a resume that passes over torn ones, and
    torchvision's ResNet and VGG weights recognised and renamed.
    """

    # Whether loading must give the model every weight, as before evaluation.
    needs_all_weights = False
    loaded_from = ""
    _has_resumed = False

    def save(self, name: str, **kwargs: Any) -> None:
        """
        Save everything to ``name``.pth.

        Raises:
            CheckpointError: it cannot be written; what was there before is untouched.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict(), **kwargs}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
        path = os.path.join(self.save_dir, f"{name}.pth")
        logger.info(f"Saving checkpoint to {path}")
        try:
            replace_file(path, lambda f: torch.save(data, f))
            self.tag_last_checkpoint(f"{name}.pth")
        except OSError as error:
            raise CheckpointError(
                f"{path} cannot be written: {error.strerror}; {remedy(error)}, then go on with "
                "--resume"
            ) from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """As Detectron2's, in one piece."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        replace_file(path, lambda f: f.write(last_filename_basename.encode()))

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """
        As Detectron2's.

        Raises:
            CheckpointError: torn, of another kind of file, of another architecture, or of a run
                with other settings.
        """
        self.loaded_from = path
        if ":" in path and os.path.isfile(path):  # before which Detectron2 sees a URL's scheme
            path = os.path.abspath(path)
        try:
            return super().load(path, *args, **kwargs)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path} does not fit ({type(error).__name__}: {error}): is it of a run with other "
                "settings (SOLVER.AMP, SOLVER.EMA_DECAY)?"
            ) from error
        finally:
            self._parsed_url_during_load = None

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """
        Resume from the newest checkpoint of the folder that loads, or load the weights ``path``.

        Raises:
            CheckpointError: there are checkpoints and none loads, another machine alone sees them,
                or the weights are of another architecture.
        """
        if resume:
            # The main process decides, since the others may see the folder later.
            newest = comm.all_gather(self._newest_that_loads() if comm.is_main_process() else None)
            self._has_resumed = newest[0] is not None
            if self._has_resumed:
                if not os.path.isfile(newest[0]):
                    raise CheckpointError(
                        f"{newest[0]} is not seen here: OUTPUT_DIR must be one folder for all "
                        "machines"
                    )
                return self.load(newest[0])
            logger.info(f"No checkpoint in {self.save_dir}: starting anew")
        return self.load(path, checkpointables=[])

    def has_checkpoint(self) -> bool:
        """Whether :meth:`resume_or_load` has resumed, which all processes agree on."""
        return self._has_resumed

    def _newest_that_loads(self) -> str | None:
        faults = []
        for path in checkpoint_files(self.save_dir):
            fault = self._why_not(path)
            if fault is None:
                logger.info(f"Resuming from {path}, the newest checkpoint that loads")
                return path
            faults.append(f"{path}: {fault}")
            logger.warning(f"Passed over {faults[-1]}")
        if faults:
            raise CheckpointError(
                "no checkpoint can be resumed from: " + "; ".join(faults) + "; "
                "go on with the settings of the run where others are given, or choose another "
                "OUTPUT_DIR to start anew"
            )
        return None

    def _why_not(self, path: str) -> str | None:
        """Why the run cannot be resumed from a file, or None."""
        try:
            data = self._torch_load(path)
        except CheckpointError as error:
            return str(error).removeprefix(f"{path} ")
        missing = [key for key in ("model", *self.checkpointables) if key not in data]
        if missing:
            return f"without {', '.join(missing)}"
        parts = {"model": self.model, **self.checkpointables}
        faults = (misfit(data[key], part) for key, part in parts.items())
        return next((fault for fault in faults if fault), None)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            return load_pickled_arrays(filename)
        if not filename.endswith((".pth", ".pt")):
            raise CheckpointError(f"{filename} must end in .pth, .pt or .pkl to be loaded")
        loaded = super()._load_file(filename)
        for name, value in loaded["model"].items():
            if not isinstance(name, str) or not isinstance(value, Tensor):
                raise CheckpointError(f"{filename} holds no weights: {name!r} in it is no tensor")
        if is_torchvision(loaded["model"]):
            loaded["model"] = rename_torchvision(loaded["model"], self.model)
        return loaded

    def _torch_load(self, f: str) -> dict[str, Any]:
        fault = archive_fault(f) if zipfile.is_zipfile(f) else None
        if fault:
            raise CheckpointError(f"{f} holds no weights that can be loaded: {fault}")
        try:
            data = torch.load(f, map_location="cpu", weights_only=True)
        except Exception as error:  # torn files and pickled code fail in many ways
            reason = str(error).split(". ")[0]
            raise CheckpointError(f"{f} holds no weights that can be loaded: {reason}") from error
        if not isinstance(data, dict) or not isinstance(data.get("model", {}), dict):
            raise CheckpointError(f"{f} holds no weights that can be loaded: it is no dictionary")
        return data

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        super()._log_incompatible_keys(incompatible)
        sizes = {name: value.numel() for name, value in self.model.state_dict().items()}
        # They count as found in whatever lacks them.
        expected = {name for name in sizes if not name.endswith("num_batches_tracked")}
        wrong = {*incompatible.missing_keys, *(key for key, *_ in incompatible.incorrect_shapes)}
        wrong &= expected
        found = _trunk(self.model)
        prefix, part = (found[0], "trunk") if found else ("", "model")
        counted = {name for name in expected if name.startswith(prefix)}
        share = 1 - sum(sizes[n] for n in counted & wrong) / sum(sizes[n] for n in counted)
        logger.info(f"{self.loaded_from} has {share:.0%} of the {part}'s weights")
        # Of another trunk nobody knows how much of the model it is.
        too_few = share < _LEAST_SHARE if found else share == 0
        if wrong and (self.needs_all_weights or too_few):
            raise CheckpointError(
                f"{self.loaded_from} is of another architecture: it lacks {len(wrong)} of the "
                f"model's {len(expected)} weights, as {min(wrong)}; {share:.0%} of the {part}'s fit"
            )
        if found:
            self._refuse_folded(counted & set(incompatible.missing_keys))

    def _refuse_folded(self, missing: set[str]) -> None:
        """Raise CheckpointError where a BatchNorm that is trained has its scale but no mean."""
        for name in missing:
            module, _, part = name.rpartition(".")
            is_live = isinstance(self.model.get_submodule(module), nn.modules.batchnorm._BatchNorm)
            if is_live and part == "running_mean" and f"{module}.weight" not in missing:
                raise CheckpointError(
                    f"{self.loaded_from} has no statistics of BatchNorm: they are within its "
                    "scales, as in MSRA's, or it is of another MODEL.RESNETS.NORM. A BatchNorm "
                    "that is trained would apply such scales twice: set NORM as in the file "
                    "(FrozenBN for MSRA's), or start from torchvision's weights, with "
                    "INPUT.FORMAT, PIXEL_MEAN and PIXEL_STD as configs/Base-Anchors.yaml has them"
                )


def misfit(state: Any, part: Any) -> str | None:
    """How a state does not fit a model or what has a ``misfit`` of its own; None where it does."""
    if not isinstance(part, nn.Module):
        return part.misfit(state) if hasattr(part, "misfit") else None
    expected = part.state_dict()
    values = state if isinstance(state, dict) else {}
    wrong = [
        name
        for name, value in expected.items()
        if getattr(values.get(name), "shape", None) != value.shape
    ]
    if not wrong:
        return None
    return f"of another architecture: {len(wrong)} of {len(expected)} weights differ, as {wrong[0]}"


def is_torchvision(state_dict: dict[str, Tensor]) -> bool:
    """Whether the weights are those of torchvision's ResNet or VGG, from first layer to last."""
    begins = not _FIRST_LAYERS.isdisjoint(state_dict)
    return begins and any(_CLASSIFIER.match(name) for name in state_dict)


def rename_torchvision(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """
    Rename torchvision's weights to those of the trunk in ``model``; the classifier is left out.

    Raises:
        CheckpointError: the model has neither trunk, or one with the strides of MSRA's ResNet.
    """
    found = _trunk(model)
    if not found:
        raise CheckpointError(
            "torchvision's weights fit a ResNet or VGG16 trunk; the model has none"
        )
    prefix, trunk = found
    names = {name: name for name in state_dict if not _CLASSIFIER.match(name)}
    if isinstance(trunk, ResNet):
        _check_strides(trunk)
        for pattern, replacement in _RESNET_NAMES:
            names = {old: re.sub(pattern, replacement, new) for old, new in names.items()}
    return {prefix + new: state_dict[old] for old, new in names.items()}


def _check_strides(trunk: ResNet) -> None:
    """Raise CheckpointError where the 1x1 convolutions have the strides, as in MSRA's."""
    blocks = (m for m in trunk.modules() if isinstance(m, BottleneckBlock))
    if any(block.conv1.stride != (1, 1) for block in blocks):
        raise CheckpointError(
            "torchvision's weights do not fit a ResNet with MODEL.RESNETS.STRIDE_IN_1X1: set it to "
            "False, and INPUT.FORMAT, MODEL.PIXEL_MEAN and MODEL.PIXEL_STD to torchvision's, as "
            "configs/Base-Anchors.yaml has them"
        )


def _trunk(model: nn.Module) -> tuple[str, nn.Module] | None:
    """The prefix of its weights' names, and the trunk."""
    trunks = (
        (f"{name}.".lstrip("."), module)
        for name, module in model.named_modules()
        if isinstance(module, ResNet | VGG16)
    )
    return next(trunks, None)
