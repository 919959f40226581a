"""A training step: Detectron2's, in mixed precision where wanted, stopped by losses that are not
finite."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from torch import Tensor, nn

from ..errors import NonFiniteLoss
from ..run_files import replace_file
from .precision import PRECISIONS


def build_step(
    cfg: CfgNode, model: nn.Module, loader: Iterable, optimizer: torch.optim.Optimizer
) -> SimpleTrainer:
    """What runs the iterations, by SOLVER.AMP."""
    if not cfg.SOLVER.AMP.ENABLED:
        return Step(cfg.OUTPUT_DIR, model, loader, optimizer)
    precision = PRECISIONS[cfg.SOLVER.AMP.PRECISION]
    if not cfg.MODEL.DEVICE.startswith("cuda"):  # where Detectron2's AMPTrainer does not work
        _autocast_in_training(model, precision)
        return Step(cfg.OUTPUT_DIR, model, loader, optimizer)
    # The range of bfloat16 is that of float32: nothing to scale.
    scaler = torch.amp.GradScaler("cuda", enabled=precision == torch.float16)
    return AMPStep(
        cfg.OUTPUT_DIR, model, loader, optimizer, precision=precision, grad_scaler=scaler
    )


def _autocast_in_training(model: nn.Module, precision: torch.dtype) -> None:
    forward = model.forward

    def autocast_forward(batch: list[dict]):
        with torch.autocast("cpu", precision, enabled=model.training):
            return forward(batch)

    model.forward = autocast_forward


class _Remembering:
    """An iterable that knows what it yielded last."""

    def __init__(self, loader: Iterable) -> None:
        self.loader = loader
        self.last: list[dict] = []

    def __iter__(self) -> Iterator[list[dict]]:
        for batch in self.loader:
            self.last = batch
            yield batch


class _FiniteLosses:
    """Checks the losses of this process before they are used."""

    def __init__(self, folder: str, model: nn.Module, loader: Iterable, *args, **kwargs) -> None:
        super().__init__(model, _Remembering(loader), *args, **kwargs)
        self.folder = folder

    def reset_data_loader(self, data_loader_builder) -> None:
        super().reset_data_loader(lambda: _Remembering(data_loader_builder()))

    def _write_metrics(self, loss_dict: Mapping[str, Tensor], *args, **kwargs) -> None:
        losses = {name: loss.item() for name, loss in loss_dict.items()}
        if not all(map(math.isfinite, losses.values())):
            self._stop(losses)
        super()._write_metrics(loss_dict, *args, **kwargs)

    def _stop(self, losses: dict[str, float]) -> None:
        batch, model = self.data_loader.last, self.model
        path = os.path.join(self.folder, f"nonfinite_{self.iter:07d}_rank{comm.get_rank()}.pth")
        kept = f"{path} holds the batch and the weights"
        try:
            save_batch(path, batch, getattr(model, "module", model))
        except (OSError, RuntimeError) as error:
            kept = f"the batch could not be saved ({error})"
        files = ", ".join(image["file_name"] for image in batch)
        terms = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        raise NonFiniteLoss(
            f"the loss is not finite in iteration {self.iter} ({terms}) on {files}; {kept}. Lower "
            "SOLVER.BASE_LR, warm up longer, or clip gradients (SOLVER.CLIP_GRADIENTS)"
        )


class Step(_FiniteLosses, SimpleTrainer):
    """Detectron2's SimpleTrainer."""


class AMPStep(_FiniteLosses, AMPTrainer):
    """Detectron2's AMPTrainer."""


def save_batch(path: str, batch: list[dict], model: nn.Module) -> None:
    """Save a training batch and the weights that it met, for :func:`load_batch`."""
    images = [
        {
            "file_name": image["file_name"],
            "image": image["image"],
            "gt_boxes": image["instances"].gt_boxes.tensor,
            "gt_classes": image["instances"].gt_classes,
        }
        for image in batch
    ]
    data = {"model": model.state_dict(), "batch": images}
    replace_file(path, lambda f: torch.save(data, f))


def load_batch(path: str) -> list[dict]:
    """The batch of a file of :func:`save_batch`; the file is a checkpoint of the weights, too."""
    batch = torch.load(path, weights_only=True)["batch"]
    for image in batch:
        instances = Instances(tuple(image["image"].shape[1:]))
        instances.gt_boxes = Boxes(image.pop("gt_boxes"))
        instances.gt_classes = image.pop("gt_classes")
        image["instances"] = instances
    return batch
