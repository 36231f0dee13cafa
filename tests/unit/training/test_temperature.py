import numpy as np
import pytest
from scipy.special import softmax

from components.training.trainer.temperature import fit_temperature, likelihood, scaled_logs


def sampled(rows: int, sharpness: float, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities that are overconfident by the factor `sharpness`, and the true labels."""
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 2, (rows, labels))
    return softmax(sharpness * logits, axis=1), (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5])
def test_temperature_equals_the_overconfidence(sharpness):
    fitted = fit_temperature(*sampled(4000, sharpness))

    assert fitted.value == pytest.approx(sharpness, rel=0.06)
    assert fitted.after <= fitted.before
    assert fitted.after == pytest.approx(likelihood(*sampled(4000, sharpness), fitted.value))


def test_temperature_maximizes_the_likelihood():
    probabilities, expected = sampled(300, 3.0)
    fitted = fit_temperature(probabilities, expected)

    assert fitted.after <= min(likelihood(probabilities, expected, t) for t in np.geomspace(0.2, 10, 400)) + 1e-7


def test_scaling_equals_softmax_of_divided_logits():
    logits = np.random.default_rng(2).normal(0, 5, (200, 5))
    scaled = np.exp(scaled_logs(softmax(logits, axis=1), 1.7))

    assert scaled == pytest.approx(softmax(logits / 1.7, axis=1))
    assert (scaled.argmax(axis=1) == logits.argmax(axis=1)).all()
    assert np.exp(scaled_logs(softmax(logits, axis=1), 1.0)) == pytest.approx(softmax(logits, axis=1))


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        (np.zeros((0, 3)), np.zeros(0, int)),
        (np.ones((5, 1)), np.zeros(5, int)),
        (np.eye(3)[[0, 1, 2]], np.array([0, 1, 2])),
        (np.array([[0.6, 0.4]]), np.array([0])),
    ],
)
def test_temperature_is_one_without_errors(probabilities, expected):
    assert fit_temperature(probabilities, expected).value == 1.0


def test_zero_probability_has_a_finite_likelihood():
    fitted = fit_temperature(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0, 1, 1]))

    assert 1.0 < fitted.value <= 10.0
    assert np.isfinite([fitted.before, fitted.after]).all()
