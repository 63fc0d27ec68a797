"""Poles, residues and direct term from an impulse response with noise."""

import numpy as np
import pytest

from polyak.check.identification.names import named
from polyak.check.identification.system import bars, exponentials, fits, fitted, refined

SYSTEMS = {
    "nothing remembered": (0.1, [], []),
    "heavy ball": (0.0, [0.9], [0.1]),
    "slow": (0.0, [0.9999], [1.0]),
    "fast": (1.0, [1e-3], [1e-3]),
    "alternating": (0.3, [-0.7], [0.2]),
    "growing": (0.0, [1.05], [1.0]),
    "never forgotten": (0.0, [1.0], [1.0]),
    "three, slow and fast": (0.0, [0.999, 0.99, 0.9], [1 / 3, 1 / 3, 1 / 3]),
    "two near each other": (1 / 3, [0.995, 0.99], [1 / 3, 1 / 3]),
    "of both signs": (0.0, [0.9, 0.5], [1.0, -0.4]),
}


def parameters(name: str) -> np.ndarray:
    direct, poles, residues = SYSTEMS[name]
    return np.array([direct, *poles, *residues])


def noisy(true: np.ndarray, eps: float, length: int = 62, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A response of which each value has a rounding, and its standard deviation."""
    response = exponentials(true, length)
    noise = eps * np.maximum(np.abs(response), 1e-8 * np.abs(response).max())
    return response + noise * np.random.default_rng(seed).normal(size=length), noise


@pytest.mark.parametrize("eps", [2.0**-53, 2.0**-24], ids=["float64", "float32"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_poles_and_residues_are_found(name: str, eps: float) -> None:
    true = parameters(name)
    system = fitted(*noisy(true, eps))
    assert system is not None
    found = np.array([system.direct, *system.poles, *system.residues])
    assert len(found) == len(true)
    # Error bars are five standard deviations long; none of these seeds is farther out.
    assert np.all(np.abs(found - true) <= system.errors)
    assert np.all(system.errors <= 1e5 * eps)  # the worst are the residues of two poles 0.005 apart: their condition


def test_the_rank_is_that_of_the_singular_values_above_the_noise() -> None:
    for count in (1, 2, 3):
        true = np.array([0.0, *[0.9, 0.5, 0.2][:count], *[1.0] * count])
        system = fitted(*noisy(true, 2.0**-24))
        assert system is not None
        # Those of noise lie under 1; the first of those beside them is far above, for poles this far from each other.
        assert np.all(system.singular[:count] > 100)
        assert np.all(system.singular[count:] < 2)


def test_a_pole_below_the_noise_is_not_found() -> None:
    true = np.array([0.0, 0.9, 0.5, 1.0, 1e-9])
    single, double = fitted(*noisy(true, 2.0**-24)), fitted(*noisy(true, 2.0**-53))
    assert single is not None
    assert len(single.poles) == 1
    assert double is not None
    assert len(double.poles) == 2


def test_error_bars_are_those_of_many_draws() -> None:
    true = np.array([0.0, 0.9, 0.5, 1.0, 1.0])
    draws = [fitted(*noisy(true, 2.0**-24, seed=seed)) for seed in range(40)]
    found = np.array([[s.direct, *s.poles, *s.residues] for s in draws if s is not None])
    assert len(found) == 40
    spread, bar = found.std(axis=0), 5  # standard deviations in a bar
    claimed = np.mean([s.errors for s in draws if s is not None], axis=0)
    # The standard deviation of 40 draws is itself off by 11 %; a third is three times that.
    assert np.all(np.abs(claimed / bar / spread - 1) < 0.35)


def test_poles_in_pairs_are_found() -> None:
    true = np.array([0.0, 0.8 * np.exp(0.5j), 0.8 * np.exp(-0.5j), 0.5, 0.5])
    response = exponentials(true, 62).real
    system = fitted(response, np.full(62, 2.0**-53))
    assert system is not None
    assert np.iscomplexobj(system.poles)
    assert np.allclose(sorted(system.poles, key=np.imag), sorted(true[1:3], key=np.imag), atol=1e-12)  # a few roundings
    assert np.allclose(system.response(62), response, atol=1e-13)


def test_what_is_no_sum_of_exponentials_is_none() -> None:
    response = np.random.default_rng(1).normal(size=62)
    assert fitted(response, np.full(62, 1e-6)) is None


def test_least_squares_of_a_curve_with_fewer_parameters_has_shorter_bars() -> None:
    true = parameters("two near each other")
    response, noise = noisy(true, 2.0**-24)

    def alike(x: np.ndarray) -> np.ndarray:
        """All residues and the direct term are one."""
        return exponentials(np.array([x[0], x[1], x[2], x[0], x[0]]), len(response))

    values, errors = refined(alike, np.array([0.3, 0.99, 0.98]), response, noise)
    assert fits(alike(values), response, noise)
    assert np.all(np.abs(values - [1 / 3, 0.995, 0.99]) <= errors)
    free = fitted(response, noise)
    assert free is not None
    assert errors[1] < free.errors[1] / 10


def test_what_a_curve_may_be_off_by_makes_bars_longer() -> None:
    true = np.array([0.0, 0.9, 1.0])
    response, noise = noisy(true, 2.0**-53)
    curve = lambda x: exponentials(x, len(response))  # noqa: E731  (a name for it)
    off = (exponentials(np.array([0.0, 0.9 + 1e-6, 1.0]), len(response)) - exponentials(true, len(response)))[None]
    assert bars(curve, true, noise)[1] < 1e-12
    # To first order in 1e-6.
    assert bars(curve, true, noise, off)[1] == pytest.approx(1e-6, rel=1e-3)


def test_shares_that_a_short_response_does_not_tell_have_no_name() -> None:
    # Near poles: within 62 steps of float32 the mean of four velocities is that of eight others too, to within the noise.
    true = np.array([0.0, 0.99854443, 0.99511585, 0.97316936, 0.82324701, *[0.725] * 4])
    short, long = noisy(true, 2.0**-24, seed=14), noisy(true, 2.0**-24, 512)
    for response, names in ((short, []), (long, [4])):
        system = fitted(*response)
        assert system is not None
        assert len(system.poles) == 4
        assert [len(found.momenta) for found in named(system, *response, 2.0**-23)] == names


def test_a_name_is_found_to_the_last_bits_of_its_parameters() -> None:
    # 1 - nu is known to a unit of nu, which is more than the noise of a response without the rounding of coefficients.
    rate, momentum, nu = 0.07, 0.99967, 0.985
    true = np.array([rate * (1 - nu), momentum, rate * nu * (1 - momentum)])
    response, noise = noisy(true, 2.0**-54)
    system = fitted(response, noise)
    assert system is not None
    (found,) = named(system, response, noise, 2.0**-52)
    assert found.rule.kind == "qhm"
    assert np.all(np.abs(found.values - [rate, momentum, nu]) <= found.errors)
