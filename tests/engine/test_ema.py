import torch
from torch import nn

from mutual_guidance.engine.ema import build_ema


def test_statistics_are_averaged_and_counters_are_the_models():
    model = nn.BatchNorm1d(2, momentum=None)
    ema = build_ema(model, 0.75)
    means = []
    for seed in range(3):
        model(torch.randn(4, 2, generator=torch.Generator().manual_seed(seed)) + seed)
        ema.update_parameters(model)
        means.append(model.running_mean.clone())
    expected = 0.75 * (0.75 * means[0] + 0.25 * means[1]) + 0.25 * means[2]
    assert torch.allclose(ema.module.running_mean, expected)
    assert ema.module.num_batches_tracked == 3
