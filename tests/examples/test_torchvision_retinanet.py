import pytest
import torch
from torchvision.models.detection import RetinaNet

from mutual_guidance.assignment import STRATEGIES
from tests.conftest import load_script


@pytest.fixture(scope="module")
def example():
    return load_script("examples/torchvision_retinanet.py")


def losses(model, batch, compute_loss=None):
    model.train()
    torch.manual_seed(0)
    if compute_loss is not None:
        model.compute_loss = lambda *args: compute_loss(model, *args)
    return {name: loss.item() for name, loss in model(*batch).items()}


def test_it_trains(example):
    history = example.train("mutual_guidance", steps=20)
    assert sum(history[-5:]) < 0.85 * sum(history[:5])


def test_the_script_prints_its_losses(example, capsys):
    example.main(["--strategy", "static", "--steps", "10"])
    assert "step 10: classification" in capsys.readouterr().out


def test_static_labels_give_torchvisions_own_losses(example):
    model = example.build_model("static")
    for seed in range(5):
        batch = example.draw_batch(torch.Generator().manual_seed(seed), num_images=2)
        # The rules differ where objects compete or where no anchor reaches 0.5: one object an
        # image, 4 pixels off the anchor of 32 x 32 around (32, 32), an IoU of about 0.6.
        for target in batch[1]:
            target["boxes"] = torch.tensor([[20.0, 20.0, 52.0, 52.0]]) + torch.rand(1, 4)
            target["labels"] = target["labels"][:1]
        ours = losses(model, batch)
        assert losses(model, batch, RetinaNet.compute_loss) == pytest.approx(ours, rel=1e-5)
        del model.compute_loss


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_image_without_objects(example, strategy):
    images, targets = example.draw_batch(torch.Generator().manual_seed(0), num_images=2)
    targets[1] = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    found = losses(example.build_model(strategy), (images, targets))
    assert all(0 <= loss < 10 for loss in found.values())
