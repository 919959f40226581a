"""A trained detector for images from anywhere."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.data.detection_utils import convert_PIL_to_numpy
from detectron2.structures import Instances

from ..checkpoint import Checkpointer
from ..data import build_mapper
from ..data.images import pixels_of, read_image
from ..errors import ConfigError, InputError
from ..run_files import checkpoint_files
from ..visualization.predictions import draw_predictions
from .setup import prepare
from .trainer import Trainer

Image = str | os.PathLike | np.ndarray | PIL.Image.Image
# Least score of what is drawn and written where a person asks for no other.
MIN_SCORE = 0.5


@dataclass(frozen=True)
class Prediction:
    """
    What was found in one image.

    Attributes:
        image: the file, array or Pillow image that was given.
        instances: ``pred_boxes`` in its own pixels (XYXY), ``scores`` and ``pred_classes``, on the
            CPU, the best first.
        metadata: with ``thing_classes``.
    """

    image: Image
    instances: Instances
    metadata: Metadata

    @property
    def class_names(self) -> list[str]:
        """Of each detection."""
        return [self.metadata.thing_classes[c] for c in self.instances.pred_classes.tolist()]

    def draw(self, min_score: float = MIN_SCORE) -> PIL.Image.Image:
        """
        The image in RGB with the boxes of at least that score, its longer side at most
        ``visualization.predictions.MAX_SIDE``; a file is read anew.
        """
        shown = self.instances[self.instances.scores >= min_score]
        return draw_predictions(_pixels(self.image), shown, self.metadata)


class Predictor:
    """
    What Detectron2's DefaultPredictor is, for batches, for files and for squares: images go through
    the transforms of ``--eval-only``, so that a prediction is the one that was evaluated.

        predictor = Predictor.from_run("output/quickstart/mutual_guidance")
        predictor("a.jpg").draw().save("found.png")

    Attributes:
        cfg: the config. model: in evaluation mode. metadata: with ``thing_classes``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        """
        Args:
            cfg: of :func:`inference_config`.

        Raises:
            CheckpointError: MODEL.WEIGHTS cannot be read or do not fit the model.
        """
        self.cfg = cfg
        # Without the data sets, as much as the config of a run says.
        self.metadata = _metadata(cfg)
        self.model = Trainer.build_model(cfg).eval()
        checkpointer = Checkpointer(self.model)
        checkpointer.needs_all_weights = True
        checkpointer.load(cfg.MODEL.WEIGHTS)
        self._augmentations = build_mapper(cfg, is_train=False).augmentations

    @classmethod
    def from_run(cls, run: str | os.PathLike, opts: Sequence[str] = ()) -> "Predictor":
        """
        The newest checkpoint of a training, or the one that is named.

        Args:
            run: see :func:`files_of_run`. opts: KEY VALUE pairs that change its config.

        Raises:
            ConfigError, DatasetError, CheckpointError: as of :func:`files_of_run`,
                :func:`inference_config` and the constructor.
        """
        return cls(inference_config(*files_of_run(run), opts))

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> "Predictor":
        """Of :func:`mutual_guidance.arguments.add_model`."""
        return cls(inference_config(*model_files(args), args.opts))

    def __call__(
        self, images: Image | Sequence[Image], batch_size: int = 8
    ) -> Prediction | list[Prediction]:
        """
        Args:
            images: files, arrays (H, W, 3), uint8, BGR as OpenCV reads them, or Pillow images,
                turned upright as EXIF says; one or a sequence.

        Returns:
            What was found in each image, with every score that the config lets through; for one
            image that is no sequence, its prediction alone.

        Raises:
            InputError: an image that cannot be read or is of another shape; it names the file.
        """
        if isinstance(images, Image):
            return self([images])[0]
        instances = []
        for i in range(0, len(images), batch_size):
            instances += self.predict([self.preprocess(x) for x in images[i : i + batch_size]])
        return [
            Prediction(image, found, self.metadata)
            for image, found in zip(images, instances, strict=True)
        ]

    def preprocess(self, image: Image) -> dict:
        """From an image, as for :meth:`__call__`, to an input of the model."""
        image = _pixels(image)
        if self.cfg.INPUT.FORMAT == "RGB":
            image = image[:, :, ::-1]
        elif self.cfg.INPUT.FORMAT == "L":
            rgb = PIL.Image.fromarray(image[:, :, ::-1])
            image = convert_PIL_to_numpy(rgb, "L")
        transformed = T.AugInput(np.ascontiguousarray(image))
        try:
            self._augmentations(transformed)
        except ValueError as error:  # of a line of pixels nothing may be left
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise InputError(f"an image of {size} pixels cannot be resized: {error}") from error
        tensor = torch.from_numpy(np.array(transformed.image.transpose(2, 0, 1), order="C"))
        return {"image": tensor, "height": image.shape[0], "width": image.shape[1]}

    @torch.no_grad()
    def predict(self, inputs: Sequence[dict]) -> list[Instances]:
        """
        The ``instances`` of :meth:`__call__`, of one batch from :meth:`preprocess`. Images of
        different sizes are not padded to one, which would change what the detector sees at their
        borders.
        """
        by_shape: dict[tuple, list[int]] = {}
        for i, x in enumerate(inputs):
            by_shape.setdefault(tuple(x["image"].shape), []).append(i)
        instances = {}
        for indices in by_shape.values():
            outputs = self.model([inputs[i] for i in indices])
            for i, output in zip(indices, outputs, strict=True):
                instances[i] = output["instances"].to("cpu")
        return [instances[i] for i in range(len(inputs))]


def _pixels(image: Image) -> np.ndarray:
    """(H, W, 3), uint8, BGR. Raises InputError for anything else."""
    if not isinstance(image, np.ndarray):
        is_open = isinstance(image, PIL.Image.Image)
        try:
            image = pixels_of(image) if is_open else read_image(os.fspath(image))
        except ValueError as error:
            raise InputError(f"{image}: {error}") from error
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise InputError(f"an image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    return image


def inference_config(config_file: str, weights: str, opts: Sequence[str] = ()) -> CfgNode:
    """
    A frozen config from which a trained model can be built.

    Args:
        config_file: of ``configs/``, or ``config.yaml`` of a run, which knows the classes even
            where its data sets are not at hand.
        weights: MODEL.WEIGHTS. opts: KEY VALUE pairs.

    Raises:
        ConfigError: the config or the weights are wrong or missing.
        DatasetError: the names of the classes stand in a data set that cannot be read.
    """
    return prepare(config_file, ["MODEL.WEIGHTS", str(weights), *opts], weights="trained")


def files_of_run(run: str | os.PathLike) -> tuple[str, str]:
    """
    Config and checkpoint of a training.

    Args:
        run: its OUTPUT_DIR, of which the newest checkpoint is taken, or a checkpoint in it.

    Raises:
        ConfigError: no training wrote the folder.
    """
    is_folder = os.path.isdir(run)
    folder = os.fspath(run) if is_folder else os.path.dirname(run)
    config_file = os.path.join(folder, "config.yaml")
    if not os.path.isfile(config_file):
        raise ConfigError(
            f"{run} has no config.yaml: name the OUTPUT_DIR of a training, or a checkpoint in it"
        )
    if not is_folder:
        return config_file, os.fspath(run)
    checkpoints = checkpoint_files(folder)
    if not checkpoints:
        raise ConfigError(f"{folder} has no checkpoint: train first, or go on with --resume")
    return config_file, checkpoints[0]


def model_files(args: argparse.Namespace) -> tuple[str, str]:
    """Config and weights of :func:`mutual_guidance.arguments.add_model`."""
    return files_of_run(args.run) if args.run else (args.config_file, args.weights)


def _metadata(cfg: CfgNode) -> Metadata:
    """Of the first data set that is at hand; else of the classes that the config tells."""
    everything = map(MetadataCatalog.get, (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN))
    known = (metadata for metadata in everything if "thing_classes" in metadata.as_dict())
    metadata = next(known, Metadata(thing_classes=list(cfg.DATASETS.CLASSES)))
    ids = {category_id: i for i, category_id in enumerate(cfg.DATASETS.CATEGORY_IDS)}
    if not ids or "thing_dataset_id_to_contiguous_id" in metadata.as_dict():
        return metadata
    return Metadata(**metadata.as_dict(), thing_dataset_id_to_contiguous_id=ids)
