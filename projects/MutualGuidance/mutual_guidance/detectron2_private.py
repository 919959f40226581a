"""The private names of Detectron2 and fvcore that are needed: any release may drop one."""

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data.build import _train_loader_from_config as train_loader_from_config
from detectron2.data.transforms import Augmentation
from detectron2.engine import SimpleTrainer
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.utils import comm
from detectron2.utils.file_io import PathHandler

# What the project calls, overrides or sets of a class or a module.
PRIVATE = {
    comm: ("_LOCAL_PROCESS_GROUP", "_get_global_gloo_group"),
    Augmentation: ("_rand_range",),
    detection_utils: ("_apply_exif_orientation",),
    DatasetMapper: ("_transform_annotations",),
    DenseDetector: ("_transpose_dense_predictions", "_decode_multi_level_predictions"),
    DetectionCheckpointer: ("_load_file", "_torch_load", "_log_incompatible_keys"),
    PathHandler: ("_get_supported_prefixes", "_get_local_path"),
    SimpleTrainer: ("_write_metrics",),
}

__all__ = ["PRIVATE", "train_loader_from_config"]
