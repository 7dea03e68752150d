import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch import nn

from kd_ray.data.image_data import ImageData, Split
from kd_ray.distill.evaluate import accuracy, evaluate, predict
from kd_ray.distill.samples import to_device
from kd_ray.metrics.calibration import fit_temperature, halves, scaled_confidences
from kd_ray.models import build_model


def make_data(count: int = 60, size: int = 16) -> ImageData:
    random = np.random.default_rng(3)
    images = random.integers(0, 256, size=(count, size, size, 3), dtype=np.uint8)
    split = Split(images_NHWC=images, labels_N=random.integers(0, 4, size=count).astype(np.int64))
    return ImageData(train=split, test=split, class_names=tuple("abcd"), mean=(0.5,) * 3, std=(0.25,) * 3)


DATA = make_data()
CPU = torch.device("cpu")
RESIDENT = to_device(DATA, CPU)


def fresh(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(name, num_classes=4, image_size=16)


def test_evaluation_equals_a_calculation_by_hand_and_scikit_learn() -> None:
    model = fresh("lenet5")
    result = evaluate(model, RESIDENT.test, RESIDENT.test.pairs())
    images = torch.from_numpy(DATA.test.images_NHWC).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        probabilities = torch.softmax(model.eval()((images - 0.5) / 0.25).double(), dim=1).numpy()
    labels = DATA.test.labels_N
    assert result.predictions_N.tolist() == probabilities.argmax(1).tolist()
    np.testing.assert_allclose(result.confidences_N, probabilities.max(1), rtol=1e-4)
    np.testing.assert_allclose(result.true_probabilities_N, probabilities[np.arange(60), labels], rtol=1e-4)
    assert result.scalars["loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(4)), rel=1e-5)
    assert accuracy(model, RESIDENT.test) == pytest.approx((probabilities.argmax(1) == labels).mean())


@pytest.mark.slow
def test_calibration_is_fitted_on_other_samples_than_it_is_measured_on() -> None:
    model = fresh("lenet5")
    with torch.no_grad():
        for parameter in list(model.parameters())[-2:]:
            parameter.mul_(20)
    logits_NC = predict(model, RESIDENT.test).double().numpy()
    labels_N, half_N = DATA.test.labels_N, halves(60)
    crossed_N = np.empty(60)
    temperatures = {half: fit_temperature(logits_NC[half_N != half], labels_N[half_N != half]) for half in (0, 1)}
    for half, temperature in temperatures.items():
        chosen_N = half_N == half
        crossed_N[chosen_N] = scaled_confidences(logits_NC[chosen_N], np.full(chosen_N.sum(), temperature))
    without = evaluate(model, RESIDENT.test, RESIDENT.test.pairs())
    np.testing.assert_allclose(without.per_sample["calibrated_confidences"], crossed_N, rtol=1e-6)
    other = to_device(make_data(count=40), torch.device("cpu")).test
    held_out = evaluate(model, RESIDENT.test, RESIDENT.test.pairs(), validation=other).scalars
    expected = fit_temperature(predict(model, other).double().numpy(), other.labels_N.numpy())
    assert held_out["calibration_temperature"] == pytest.approx(expected, rel=1e-9)
    assert held_out["calibrated_expected_calibration_error"] < 0.5 * held_out["expected_calibration_error"]


def test_prediction_uses_running_statistics_and_leaves_the_mode_alone() -> None:
    model = fresh("resnet20")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    predict(model, RESIDENT.test)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_network_that_says_always_the_same_is_individually_fair() -> None:
    constant = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    for parameter in constant.parameters():
        nn.init.zeros_(parameter)
    scalars = evaluate(constant, RESIDENT.test, RESIDENT.test.pairs()).scalars
    names = ("individual_fairness", "individual_fairness_hard", "individual_fairness_p95", "individual_fairness_max")
    assert [scalars[name] for name in names] == [0, 0, 0, 0]


@pytest.mark.slow
def test_pairs_of_large_images_are_those_of_the_images_averaged_to_32_pixels() -> None:
    large = make_data(count=40, size=64)
    blocks = large.test.images_NHWC.reshape(40, 32, 2, 32, 2, 3).astype(np.float64).mean((2, 4)) / 255
    pairs = to_device(large, CPU).test.pairs()
    distances = np.linalg.norm(
        ((blocks - 0.5) / 0.25).reshape(40, -1)[pairs.first_P]
        - ((blocks - 0.5) / 0.25).reshape(40, -1)[pairs.second_P],
        axis=1,
    )
    ratio = pairs.distance_P / distances
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)
