"""A training step: Detectron2's, in mixed precision where wanted, stopped by losses that are not
finite, and with no wait for the device but those of the model."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from torch import Tensor, nn
from torch.optim import SGD

from ..errors import NonFiniteLoss
from ..modeling.late import use_later
from ..run_files import replace_file
from .precision import PRECISIONS, autocast_on_cpu


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
    # Unlike a closure it is pickled, and copied to be of the copy; unlike hooks, which a Ctrl-C
    # passes by, it always leaves the autocast.
    model.forward = partial(_autocast_forward, model, precision)


def _autocast_forward(model: nn.Module, precision: torch.dtype, batch: list[dict]) -> Any:
    with autocast_on_cpu(precision) if model.training else nullcontext():
        return type(model).forward(model, batch)


class _Batches:
    """The batches of a loader, on the model's device; ``last`` is the last one as it came."""

    def __init__(self, loader: Iterable, device: torch.device) -> None:
        self.loader = loader
        self.device = device
        self.last: list[dict] = []

    def __iter__(self) -> Iterator[list[dict]]:
        for batch in self.loader:
            self.last = batch
            yield [_upload(image, self.device) for image in batch]


def _upload(value: Any, device: torch.device) -> Any:
    """An image of a batch, or part of it, with its tensors on a device, without waiting."""
    if device.type != "cuda":
        return value
    if isinstance(value, dict):
        return {name: _upload(x, device) for name, x in value.items()}
    if isinstance(value, Instances):
        fields = {name: _upload(x, device) for name, x in value.get_fields().items()}
        return Instances(value.image_size, **fields)
    if isinstance(value, Boxes):
        return Boxes(_upload(value.tensor, device))
    # From other memory than pinned one the host would wait.
    return value.pin_memory().to(device, non_blocking=True) if torch.is_tensor(value) else value


class _FiniteLosses:
    """
    Reads the losses of this process when they are there: on the CPU before they are used, on a GPU
    in the next step. There the device itself leaves out the update of losses that are not finite;
    for another optimiser than SGD the host waits.
    """

    def __init__(self, folder: str, model: nn.Module, loader: Iterable, *args, **kwargs) -> None:
        self.device = next(model.parameters()).device
        super().__init__(model, _Batches(loader, self.device), *args, **kwargs)
        self.folder = folder
        self._prepare_optimizer()

    def _prepare_optimizer(self) -> None:
        """On a GPU let an update depend on a flag, as PyTorch's fused SGD does."""
        self.reads_later = self.device.type == "cuda" and isinstance(self.optimizer, SGD)
        if not self.reads_later:
            return
        self.optimizer._step_supports_amp_scaling = True
        for group in self.optimizer.param_groups:
            group.update(foreach=False, fused=True)
            for parameter in group["params"] if group["momentum"] else ():
                # From zero on; a first step that is left out would leave them as they were found.
                buffer = torch.zeros_like(parameter)
                self.optimizer.state[parameter].setdefault("momentum_buffer", buffer)

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict(state_dict)
        # The run may have been on another device or in another memory layout, and PyTorch's fused
        # SGD takes the buffers' as it comes.
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        kinds = self.optimizer.defaults
        how = {key: kinds[key] for key in ("foreach", "fused") if key in kinds}
        for group in self.optimizer.param_groups:
            group.update(how)
        self._prepare_optimizer()

    def reset_data_loader(self, data_loader_builder) -> None:
        super().reset_data_loader(lambda: _Batches(data_loader_builder(), self.device))

    def _write_metrics(self, loss_dict: Mapping[str, Tensor], data_time: float, *_) -> None:
        batch, iteration, names = self.data_loader.last, self.iter, list(loss_dict)
        values = torch.stack([loss.detach().float() for loss in loss_dict.values()])
        if self.reads_later:
            found_inf = values.isfinite().all().logical_not().float()
            if comm.get_world_size() > 1:  # the others' gradients have it, too
                torch.distributed.all_reduce(found_inf, torch.distributed.ReduceOp.MAX)
            self.optimizer.found_inf = found_inf

        def write(values: Tensor) -> None:
            losses = dict(zip(names, values, strict=True))
            if not values.isfinite().all():
                self._stop(iteration, losses, batch)
            self.write_metrics(losses, data_time, iteration)

        if values.is_cuda and not self.reads_later:
            write(values.cpu())
        else:
            use_later(values, write)

    def _stop(self, iteration: int, losses: dict[str, Tensor], batch: list[dict]) -> None:
        path = os.path.join(self.folder, f"nonfinite_{iteration:07d}_rank{comm.get_rank()}.pth")
        kept = f"{path} holds the batch and the weights"
        try:
            save_batch(path, batch, getattr(self.model, "module", self.model))
        except (OSError, RuntimeError) as error:
            kept = f"the batch could not be saved ({error})"
        files = ", ".join(image["file_name"] for image in batch)
        terms = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        raise NonFiniteLoss(
            f"the loss is not finite in iteration {iteration} ({terms}) on {files}; {kept}. Lower "
            "SOLVER.BASE_LR, warm up longer, or clip gradients (SOLVER.CLIP_GRADIENTS)"
        )


class Step(_FiniteLosses, SimpleTrainer):
    """Detectron2's SimpleTrainer."""


class AMPStep(_FiniteLosses, AMPTrainer):
    """Detectron2's AMPTrainer, whose state has a scaler only where one scales."""

    def state_dict(self) -> dict:
        state = super().state_dict()
        if not self.grad_scaler.is_enabled():  # a run of the CPU, which has none, may go on here
            del state["grad_scaler"]
        return state

    def load_state_dict(self, state_dict: dict) -> None:
        super().load_state_dict({"grad_scaler": {}, **state_dict})

    def after_backward(self) -> None:
        super().after_backward()
        # Now, since a fused optimizer would unscale the gradients after they are clipped.
        self.grad_scaler.unscale_(self.optimizer)


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
    batch = torch.load(path, map_location="cpu", weights_only=True)["batch"]
    for image in batch:
        instances = Instances(tuple(image["image"].shape[1:]))
        instances.gt_boxes = Boxes(image.pop("gt_boxes"))
        instances.gt_classes = image.pop("gt_classes")
        image["instances"] = instances
    return batch
