import os
import pickle
import re
import resource
import zipfile

import numpy as np
import pytest
import torch
import torchvision
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import build_resnet_backbone
from torch import nn

from mutual_guidance.checkpoint import Checkpointer, TorchvisionHandler, is_torchvision
from mutual_guidance.config import load_config
from mutual_guidance.errors import CheckpointError
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


def test_a_model_with_a_classifier_of_its_own_is_not_torchvisions():
    own = {"backbone.stem.conv1.weight": torch.zeros(1), "classifier.weight": torch.zeros(1)}
    assert not is_torchvision(own)
    assert is_torchvision(torchvision.models.resnet18().state_dict())


def test_model_without_a_trunk_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    with pytest.raises(CheckpointError, match="the model has none"):
        Checkpointer(nn.Linear(1, 1)).load(str(path))


def test_weights_that_cannot_be_fetched(monkeypatch, tmp_path):
    def refuse(self, *args, **kwargs):
        raise OSError("no route")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", refuse)
    with pytest.raises(CheckpointError, match=r"resnet18-.*\.pth cannot be fetched \(no route\)"):
        TorchvisionHandler()._get_local_path("torchvision://resnet18")


def test_cached_weights_are_used(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.url
    file = tmp_path / "hub" / "checkpoints" / url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"cached")
    assert TorchvisionHandler()._get_local_path("torchvision://resnet18") == str(file)


def small_model():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))


class Counter:
    """Something to keep beside the model."""

    def __init__(self):
        self.value = 0

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def saved_run(folder, iterations):
    """A checkpointer whose model has the iteration as its first weight, and a file for each."""
    checkpointer = Checkpointer(small_model(), str(folder), trainer=Counter())
    for iteration in iterations:
        checkpointer.model[0].weight.data.fill_(iteration)
        checkpointer.save(f"model_{iteration:07d}")
    return checkpointer


def tear(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_resume_takes_the_newest_that_loads(tmp_path, caplog):
    saved_run(tmp_path, [1, 2, 3, 4])
    tear(tmp_path / "model_0000004.pth")
    torch.save({"model": small_model().state_dict()}, tmp_path / "model_0000003.pth")
    with caplog.at_level("INFO"):
        checkpointer = saved_run(tmp_path, [])
        checkpointer.resume_or_load("", resume=True)
    assert checkpointer.model[0].weight[0, 0] == 2
    assert "Passed over" in caplog.text and "model_0000004.pth: holds no weights" in caplog.text
    assert "model_0000003.pth: without trainer" in caplog.text
    assert "Resuming from" in caplog.text and "model_0000002.pth" in caplog.text


def test_a_folder_that_one_machine_alone_sees(tmp_path, monkeypatch):
    checkpointer = saved_run(tmp_path, [1])
    elsewhere = str(tmp_path / "of_another" / "model_0000001.pth")
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda value: [elsewhere, value])
    with pytest.raises(CheckpointError, match="OUTPUT_DIR must be one folder for all machines"):
        checkpointer.resume_or_load("", resume=True)


@pytest.mark.parametrize("copied", [False, True])
def test_resume_goes_by_the_iteration_and_not_by_the_times_of_copies(tmp_path, copied):
    saved_run(tmp_path, [1, 2, 3])
    if copied:  # the last one first
        for second, name in enumerate(sorted(tmp_path.glob("*.pth"), reverse=True)):
            os.utime(name, (second, second))
    checkpointer = saved_run(tmp_path, [])
    checkpointer.resume_or_load("", resume=True)
    assert checkpointer.model[0].weight[0, 0] == 3


def test_a_zeroed_part_of_a_checkpoint_is_found(tmp_path, caplog):
    saved_run(tmp_path, [1, 2])
    path = tmp_path / "model_0000002.pth"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = max(archive.infolist(), key=lambda m: m.file_size).header_offset + 64
    data[start : start + 64] = bytes(64)
    path.write_bytes(data)
    checkpointer = saved_run(tmp_path, [])
    checkpointer.resume_or_load("", resume=True)
    assert checkpointer.model[0].weight[0, 0] == 1
    assert "model_0000002.pth: holds no weights that can be loaded: damaged" in caplog.text


def test_a_dangling_link_is_passed_over(tmp_path, caplog):
    saved_run(tmp_path, [1])
    (tmp_path / "model_0000002.pth").symlink_to(tmp_path / "gone")
    checkpointer = saved_run(tmp_path, [])
    checkpointer.resume_or_load("", resume=True)
    assert "Passed over" in caplog.text and checkpointer.model[0].weight[0, 0] == 1


def test_a_checkpoint_that_would_unpack_to_more_than_it_is(tmp_path):
    stored, path = tmp_path / "stored.pth", tmp_path / "bomb.pth"
    torch.save({"model": {"a": torch.zeros(2**22)}}, stored)
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert path.stat().st_size < 2**17
    with pytest.raises(CheckpointError, match="it would unpack to more than it is"):
        Checkpointer(small_model()).load(str(path))


def test_no_checkpoint_that_loads_is_an_error_and_none_at_all_is_not(tmp_path):
    checkpointer = saved_run(tmp_path, [1])
    tear(tmp_path / "model_0000001.pth")
    with pytest.raises(CheckpointError, match=r"model_0000001\.pth: holds no.*another OUTPUT_DIR"):
        checkpointer.resume_or_load("", resume=True)
    (tmp_path / "model_0000001.pth").unlink()
    checkpointer.resume_or_load("", resume=True)


def test_disk_full_leaves_the_old_checkpoint(tmp_path):
    checkpointer = saved_run(tmp_path, [1])
    before = (tmp_path / "model_0000001.pth").read_bytes()
    # A file may not grow beyond its old size, as on a full disk.
    checkpointer.model.add_module("more", nn.Linear(500, 500))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), limits[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written: .*go on with --resume"):
            checkpointer.save("model_0000001")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "model_0000001.pth").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]


def test_weights_of_another_architecture(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"model": nn.Conv2d(3, 8, 3).state_dict()}, path)
    with pytest.raises(CheckpointError, match=r"lacks 4 of the model's 4 weights, as 0\.bias"):
        Checkpointer(small_model()).load(str(path))

    state = small_model().state_dict()
    state["1.weight"] = torch.zeros(7, 7)
    torch.save({"model": state}, path)
    Checkpointer(small_model()).load(str(path))  # a start for training
    checkpointer = Checkpointer(small_model())
    checkpointer.needs_all_weights = True
    with pytest.raises(CheckpointError, match=r"lacks 1 of .*, as 1\.weight; 78% of"):
        checkpointer.load(str(path))


def test_weights_of_a_trunk_of_ones_own_are_a_start(tmp_path):
    path = tmp_path / "own.pth"
    trunk = nn.Linear(2, 2)
    torch.save({f"backbone.{name}": value for name, value in trunk.state_dict().items()}, path)
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(100, 100)})
    Checkpointer(model).load(str(path))
    assert torch.equal(model["backbone"].weight, trunk.weight)


def test_torchvisions_weights_in_msras_resnet(tmp_path):
    path = tmp_path / "resnet50.pth"
    torch.save(torchvision.models.resnet50().state_dict(), path)
    config = REPOSITORY / "configs" / "PascalVOC-Detection" / "retinanet_R_50_FPN.yaml"
    trunk = build_resnet_backbone(load_config(str(config), []), ShapeSpec(channels=3))
    with pytest.raises(CheckpointError, match=r"STRIDE_IN_1X1: set it to False, and INPUT\.FORMAT"):
        Checkpointer(trunk).load(str(path))


def test_folded_batchnorm_is_no_start_of_one_that_is_trained(tmp_path):
    path = tmp_path / "msra.pth"
    weights = {n: v for n, v in resnet18().state_dict().items() if ".running_" not in n}
    torch.save(weights, path)
    with pytest.raises(
        CheckpointError, match=r"msra\.pth has no statistics .* \(FrozenBN for MSRA"
    ):
        Checkpointer(resnet18()).load(str(path))
    whole = resnet18().state_dict()
    torch.save({n: v for n, v in whole.items() if "res5.1.conv2.norm" not in n}, path)
    Checkpointer(resnet18()).load(str(path))  # a layer that is not there starts anew


def trunk_and_head():
    """That a head alone is more than the trunk must not count."""
    return nn.ModuleDict({"trunk": resnet18(), "head": nn.ModuleList([nn.Linear(1, 1)] * 500)})


@pytest.mark.parametrize("needs_all_weights", [False, True])
@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"foo": torch.zeros(3)},
        {f"head.{i}.weight": torch.zeros(1, 1) for i in range(500)},
        torchvision.models.mobilenet_v3_small().state_dict(),
        torchvision.models.resnet50().state_dict(),
    ],
    ids=["empty", "foo", "head", "mobilenet", "resnet50"],
)
def test_weights_that_leave_the_trunk_as_it_was_are_refused(tmp_path, weights, needs_all_weights):
    path = tmp_path / "foreign.pth"
    torch.save(weights, path)
    checkpointer = Checkpointer(trunk_and_head())
    checkpointer.needs_all_weights = needs_all_weights
    with pytest.raises(CheckpointError, match=r"foreign\.pth is of another .* \d+% of the"):
        checkpointer.load(str(path))


@pytest.mark.parametrize("data", [3, [torch.zeros(3)], {"foo": "bar"}, {1: torch.zeros(3)},
                                  {"model": [1]}, {"model": {"a": None}}])  # fmt: skip
def test_what_is_no_dictionary_of_weights_is_refused(tmp_path, data):
    path = tmp_path / "odd.pth"
    torch.save(data, path)
    with pytest.raises(CheckpointError, match=r"odd\.pth holds no weights"):
        Checkpointer(small_model()).load(str(path))


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl"])
def test_weights_of_a_stranger_execute_nothing(tmp_path, name):
    path, trap = tmp_path / name, tmp_path / "trap"
    data = {"model": {"a": Evil(trap)}, "__author__": "stranger"}
    torch.save(data, path) if name.endswith("pth") else path.write_bytes(pickle.dumps(data))
    with pytest.raises(CheckpointError, match=name):
        Checkpointer(small_model()).load(str(path))
    assert not trap.exists()


def test_weights_of_detectron2s_model_zoo(tmp_path):
    path = tmp_path / "zoo.pkl"
    model = small_model()
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2"}))
    loaded = small_model()
    Checkpointer(loaded).load(str(path))
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))


def caffe2_name(name):
    """Of a weight of Detectron2's ResNet, in MSRA's file."""
    for pattern, replacement in (
        (r"stem\.conv1\.norm", "res_conv1_bn"),
        (r"stem\.", ""),
        (r"(res\d\.\d+)\.conv(\d)", lambda m: f"{m[1]}_branch2{'abc'[int(m[2]) - 1]}"),
        ("shortcut", "branch1"),
        (r"\.norm|_bn", "_bn"),
        (r"_bn\.weight$", "_bn_s"),
        (r"\.weight$", "_w"),
        (r"\.bias$", "_b"),
    ):
        name = re.sub(pattern, replacement, name)
    return name.replace(".", "_")


@pytest.mark.parametrize("key", [None, "blobs"])
def test_imagenet_weights_of_detectron1(tmp_path, key):
    """The start of the two of ResNet-50-FPN: MSRA's, without a mark of what they are."""
    config = str(REPOSITORY / "configs" / "PascalVOC-Detection" / "retinanet_R_50_FPN.yaml")
    cfg = load_config(config, ["MODEL.RESNETS.OUT_FEATURES", ["res2"]])
    trunk, loaded = (build_resnet_backbone(cfg, ShapeSpec(channels=3)) for _ in range(2))
    arrays = {
        caffe2_name(name): value.numpy() + 1
        for name, value in trunk.state_dict().items()
        if "running" not in name
    }
    assert {"conv1_w", "res_conv1_bn_s", "res2_0_branch1_bn_b", "res2_2_branch2c_w"} < set(arrays)
    arrays |= {"conv1_w_momentum": arrays["conv1_w"] * 0, "pred_w": np.zeros((1000, 2048), "f4")}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(arrays if key is None else {key: arrays, "cfg": "text"}, 2))
    Checkpointer(nn.ModuleDict({"backbone": nn.ModuleDict({"bottom_up": loaded})})).load(str(path))
    for name, value in loaded.state_dict().items():
        if "running" not in name:
            assert torch.equal(value, trunk.state_dict()[name] + 1), name


def test_unknown_kinds_of_files_are_refused(tmp_path):
    path = tmp_path / "weights.pyth"
    path.write_bytes(pickle.dumps({}))
    with pytest.raises(CheckpointError, match=r"must end in \.pth, \.pt or \.pkl"):
        Checkpointer(small_model()).load(str(path))


def test_a_folder_that_begins_as_a_url_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Run:1").mkdir()
    Checkpointer(nn.Linear(2, 2), save_dir="Run:1").save("model_final")
    Checkpointer(nn.Linear(2, 2)).load("Run:1/model_final.pth")
