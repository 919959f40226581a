import pytest

from benchmarks import losses
from tests.runs import CONFIG


def test_both_losses_are_measured(capsys):
    losses.main(["--config-file", CONFIG, "--images", "2", "--repeats", "1"])
    rows = [line.split("|")[1:5] for line in capsys.readouterr().out.splitlines() if "| " in line]
    values = {name.strip(): [float(x) for x in row] for name, *row in rows[1:]}
    assert values["Mutual Guidance"][2] < 5 < values["Detectron2 RetinaNet"][2]
    assert all(milliseconds > 0 for milliseconds, *_ in values.values())


def test_the_losses_of_classification_are_the_same():
    cfg = losses.prepare(
        CONFIG,
        ["MODEL.DEVICE", "cpu", "MODEL.RETINANET.BBOX_REG_LOSS_TYPE", "giou"],
    )
    batch = losses.make_batch(losses.Trainer.build_model(cfg), 2, 64)
    with losses.EventStorage(), losses.torch.no_grad():
        ours, theirs = losses.ours(*batch)["loss_cls"], losses.detectron2s(*batch)["loss_cls"]
    num_positives = int((batch[3].cls_gt_inds >= 0).sum())
    # Detectron2 divides by an average over the steps, which begins with 100.
    assert float(ours) * num_positives == pytest.approx(
        float(theirs) * (0.9 * 100 + 0.1 * num_positives), rel=1e-4
    )
