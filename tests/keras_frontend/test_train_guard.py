"""`polyak train` leaves out steps whose gradients are not finite, and ends the run with their names."""

import keras
import pytest

import polyak.keras
from polyak.train import run as running
from polyak.train.interrupt import Interruption
from polyak.train.job import Job
from polyak.train.options import Options


class Poisoned(polyak.keras.Momentum):
    """Every gradient of the last variable is infinite."""

    def apply(self, grads, trainable_variables=None):
        *others, last = grads
        super().apply([*others, last / 0.0], trainable_variables)


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("polyak.keras.Momentum", Poisoned)
    monkeypatch.setattr(running, "use", lambda _: None)  # it would make the whole process deterministic, for good
    options = Options(backend=keras.backend.backend(), model="mlp", epochs=3)
    before = [w.numpy() if hasattr(w, "numpy") else w for w in Job(options).model.get_weights()]
    with Interruption() as interruption:
        result = running.run(options, tmp_path, interruption)
    assert result.status == "failed"
    # The host looks after the first step, and then ten times a second; on PyTorch the step itself looks.
    assert (result.epochs, result.step) == (0, 0 if keras.backend.backend() == "torch" else 1)
    assert "the gradients of these parameters are not finite: ['" in result.stopped
    model = keras.models.load_model(tmp_path / "model.keras", custom_objects={"Poisoned": Poisoned})
    for old, new in zip(before, model.get_weights(), strict=True):  # the same seed: every step was left out
        assert (old == new).all()


def test_the_default_of_train_is_error():
    assert Job(Options(backend=keras.backend.backend(), model="mlp")).optimizer.finite == "error"
    with pytest.raises(AttributeError, match="finite is fixed"):
        Job(Options(backend=keras.backend.backend(), model="mlp")).optimizer.finite = "off"
