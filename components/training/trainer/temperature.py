"""Temperature scaling: one number, fitted on the validation split, that calibrates the probabilities.

Guo et al. (2017), ICML, arXiv 1706.04599. Probabilities become p^(1/T), scaled to sum to 1, which is the softmax of logits / T: their
order, and with it every predicted label, stays the same.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_BOUNDS = (0.2, 10.0)
_SMALLEST = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Temperature:
    """The temperature, above 0, and the mean negative log-likelihood of the validation rows (nats) without and with it."""

    value: float
    before: float
    after: float


def fit_temperature(probabilities: Floats, expected: Ints) -> Temperature:
    """Return the temperature of `probabilities` (rows, labels) with the highest likelihood of the `expected` label indices (rows,).

    It is 1 if there are no rows, only one label, or no wrong prediction, since the likelihood would then grow without bound.
    """
    if not len(expected) or probabilities.shape[1] < 2:
        return Temperature(1.0, 0.0, 0.0)
    before = likelihood(probabilities, expected, 1.0)
    if bool((probabilities.argmax(axis=1) == expected).all()):
        return Temperature(1.0, before, before)
    optimum = scipy.optimize.minimize_scalar(
        lambda log: likelihood(probabilities, expected, float(np.exp(log))),
        bounds=tuple(np.log(_BOUNDS)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    value = round(float(np.exp(optimum.x)), 4)  # rounding errors of other hardware must not change the model
    after = likelihood(probabilities, expected, value)
    return Temperature(value, before, after) if after < before else Temperature(1.0, before, before)


def likelihood(probabilities: Floats, expected: Ints, temperature: float) -> float:
    """Return the mean negative log-likelihood of the `expected` label indices at `temperature`, in nats."""
    return float(-np.mean(scaled_logs(probabilities, temperature)[np.arange(len(expected)), expected]))


def scaled_logs(probabilities: Floats, temperature: float) -> Floats:
    """Return the logarithms of the probabilities (rows, labels) at `temperature`."""
    logs = np.log(np.maximum(probabilities, _SMALLEST)) / temperature
    logs -= logs.max(axis=1, keepdims=True)
    return np.asarray(logs - np.log(np.exp(logs).sum(axis=1, keepdims=True)), dtype=np.float64)
