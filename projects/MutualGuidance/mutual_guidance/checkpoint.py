"""Checkpoints: written whole or not at all, read without executing anything."""

import logging
import os
import pickle
import re
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling.backbone import ResNet
from detectron2.utils import comm
from detectron2.utils.file_io import PathHandler, PathManager
from torch import Tensor, hub, nn
from torchvision.models import get_model_weights

from .errors import CheckpointError
from .modeling import VGG16
from .run_files import checkpoint_files, replace_file

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
logger = logging.getLogger(__name__)


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
                raise CheckpointError(
                    f"{path}: {weights.url} cannot be fetched ({error}); without a network, put "
                    f'the file into {folder} or set MODEL.WEIGHTS to "" or to a local file'
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
        # PyTorch's writer wraps the system's error.
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} cannot be written: {error}; make room, then go on with --resume"
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
        self._path = path
        try:
            return super().load(path, *args, **kwargs)
        except KeyError as error:
            raise CheckpointError(
                f"{path} lacks {error}: it is of a run with other settings (SOLVER.AMP?)"
            ) from error

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """
        Resume from the newest checkpoint of the folder that loads, or load the weights ``path``.

        Raises:
            CheckpointError: there are checkpoints and none loads, or the weights are of another
                architecture.
        """
        if resume:
            # The main process decides, since the others may see the folder later.
            newest = comm.all_gather(self._newest_that_loads() if comm.is_main_process() else None)
            self._has_resumed = newest[0] is not None
            if self._has_resumed:
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
                "remove them to start anew, or choose another OUTPUT_DIR"
            )
        return None

    def _why_not(self, path: str) -> str | None:
        """Why the run cannot be resumed from a file, or None."""
        try:
            data = self._torch_load(path)
        except CheckpointError as error:
            return f"torn or unreadable ({type(error.__cause__).__name__})"
        missing = [key for key in ("model", *self.checkpointables) if key not in data]
        if missing:
            return f"without {', '.join(missing)}"
        return misfit(data["model"], self.model)

    def _load_file(self, filename: str) -> dict[str, Any]:
        if filename.endswith(".pkl"):
            return load_pickled_arrays(filename)
        if not filename.endswith((".pth", ".pt")):
            raise CheckpointError(f"{filename} must end in .pth, .pt or .pkl to be loaded")
        loaded = super()._load_file(filename)
        if is_torchvision(loaded["model"]):
            loaded["model"] = rename_torchvision(loaded["model"], self.model)
        return loaded

    def _torch_load(self, f: str) -> dict[str, Any]:
        try:
            return torch.load(f, map_location="cpu", weights_only=True)
        except Exception as error:  # torn files and pickled code fail in many ways
            reason = str(error).split(". ")[0]
            raise CheckpointError(f"{f} holds no weights that can be loaded: {reason}") from error

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        super()._log_incompatible_keys(incompatible)
        wrong = {*incompatible.missing_keys, *(key for key, *_ in incompatible.incorrect_shapes)}
        allowed = 0 if self.needs_all_weights else len(self.model.state_dict()) - 1
        if len(wrong) > allowed:
            raise CheckpointError(
                f"{self._path} is of another architecture: it lacks {len(wrong)} of the model's "
                f"{len(self.model.state_dict())} weights, as {min(wrong)}"
            )


def misfit(state_dict: dict[str, Tensor], model: nn.Module) -> str | None:
    """How the weights do not cover the model's, or None where they do."""
    expected = model.state_dict()
    wrong = [
        name
        for name, value in expected.items()
        if name not in state_dict or state_dict[name].shape != value.shape
    ]
    if not wrong:
        return None
    return f"of another architecture: {len(wrong)} of {len(expected)} weights differ, as {wrong[0]}"


class _ArrayUnpickler(pickle.Unpickler):
    """Builds containers and NumPy arrays and calls nothing else."""

    _ALLOWED = frozenset(
        {
            ("collections", "OrderedDict"),
            ("_codecs", "encode"),
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            *(
                (f"numpy.{core}.multiarray", name)
                for core in ("core", "_core")
                for name in ("_reconstruct", "scalar")
            ),
        }
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in weights")
        return super().find_class(module, name)


def load_pickled_arrays(path: str) -> dict[str, Any]:
    """
    Weights of Detectron2's model zoo, a pickle of NumPy arrays.

    Raises:
        CheckpointError: anything else is in it; nothing of it is executed.
    """
    try:
        with open(path, "rb") as f:
            data = _ArrayUnpickler(f, encoding="latin1").load()
        if "model" not in data:
            raise pickle.UnpicklingError('no "model" in it')
    except (pickle.UnpicklingError, EOFError, TypeError) as error:
        raise CheckpointError(f"{path} is not of Detectron2's model zoo: {error}") from error
    return data


def is_torchvision(state_dict: dict[str, Tensor]) -> bool:
    """Whether the weights are those of torchvision's ResNet or VGG."""
    return any(_CLASSIFIER.match(name) for name in state_dict)


def rename_torchvision(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """
    Rename torchvision's weights to those of the trunk in ``model``; the classifier is left out.

    Raises:
        CheckpointError: the model has neither trunk.
    """
    trunks = [(n, m) for n, m in model.named_modules() if isinstance(m, ResNet | VGG16)]
    if not trunks:
        raise CheckpointError(
            "torchvision's weights fit a ResNet or VGG16 trunk; the model has none"
        )
    prefix, trunk = trunks[0]
    names = {name: name for name in state_dict if not _CLASSIFIER.match(name)}
    if isinstance(trunk, ResNet):
        for pattern, replacement in _RESNET_NAMES:
            names = {old: re.sub(pattern, replacement, new) for old, new in names.items()}
    return {f"{prefix}.{new}".lstrip("."): state_dict[old] for old, new in names.items()}
