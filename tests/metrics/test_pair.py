import torch

from nognet.metrics.definitions import PAIR_METRIC_NAMES
from nognet.metrics.image import psnr, psnr_nodule, ssim, ssim_nodule
from nognet.metrics.overlap import dsc
from nognet.metrics.pair import pair_metrics
from nognet.metrics.volume import log_volume_error, volume_error
from tests.builders.metric_cases import ball_mask, image_pair


def _case() -> tuple[torch.Tensor, ...]:
    predicted, truth = image_pair(16, batch=3, seed=9)
    predicted_mask = torch.cat([ball_mask(16, radius) * 0.9 for radius in (3, 4, 5)])
    true_mask = torch.cat([ball_mask(16, radius) for radius in (4, 4, 3)])
    return predicted, truth, predicted_mask, true_mask


def test_pair_metrics_give_each_metrics_own_numbers() -> None:
    predicted, truth, predicted_mask, true_mask = _case()
    expected = {
        "psnr": psnr(predicted, truth),
        "psnr_nodule": psnr_nodule(predicted, truth, predicted_mask, true_mask),
        "ssim": ssim(predicted, truth),
        "ssim_nodule": ssim_nodule(predicted, truth, true_mask),
        "dsc": dsc(predicted_mask, true_mask),
        "volume_error": volume_error(predicted_mask, true_mask),
        "log_volume_error": log_volume_error(predicted_mask, true_mask),
        "folded_fraction": torch.tensor([0.0, 1.0, 0.0]).double(),
        "interval_coverage": torch.tensor([1.0, 0.0, 1.0]).double(),
        "interval_width": torch.tensor([20.0, 0.0, 20.0]).double(),
    }
    field = torch.zeros(3, 3, 16, 16, 16)
    field[1, 0] = -2.0 * torch.arange(16.0)[:, None, None]
    found = pair_metrics(
        predicted,
        truth,
        predicted_mask,
        true_mask,
        displacement_vox=field,
        log_volume_radius=torch.tensor([10.0, 0.0, 10.0]),
    )
    assert tuple(found) == PAIR_METRIC_NAMES == tuple(expected)
    for name, values in expected.items():
        assert values.shape == (3,)
        assert torch.equal(found[name], values)


def test_inputs_are_left_as_they_were() -> None:
    case = _case()
    copies = [tensor.clone() for tensor in case]
    pair_metrics(*case)
    assert all(torch.equal(a, b) for a, b in zip(case, copies, strict=True))


def test_a_perfect_prediction_has_the_best_value_of_every_metric() -> None:
    _, truth, _, true_mask = _case()
    found = pair_metrics(truth, truth, true_mask, true_mask)
    best = {"psnr": 100, "psnr_nodule": 100, "ssim": 1, "ssim_nodule": 1, "dsc": 1}
    for name, values in found.items():
        if name in {"folded_fraction", "interval_coverage", "interval_width"}:
            assert values.isnan().all()  # neither a field nor an interval was given
            continue
        torch.testing.assert_close(values, torch.full((3,), float(best.get(name, 0))).double())


def test_gradients_do_not_flow_out_of_a_measurement() -> None:
    predicted, truth, predicted_mask, true_mask = _case()
    found = pair_metrics(predicted.requires_grad_(), truth, predicted_mask, true_mask)
    assert not any(values.requires_grad for values in found.values())
