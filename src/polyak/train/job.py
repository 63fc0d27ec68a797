"""The part of a run that Keras does: build, fit, evaluate, save."""

import platform
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from polyak.train.backends import BACKENDS
from polyak.train.folder import replace
from polyak.train.options import Options
from polyak.train.tasks import TASKS, Model, Splits
from polyak.train.watch import BadGradient, Watch


class Job:
    """A model, its optimizer and its data, ready to train. Made after `polyak.train.backends.use`."""

    def __init__(self, options: Options) -> None:
        import keras

        from polyak.keras import Momentum

        keras.utils.set_random_seed(options.seed)  # Python, NumPy and the backend
        task = TASKS[options.task]
        self.options = options
        self.data: Splits = task.load()
        velocity: Any = options.velocity  # a str that Options has checked
        self.optimizer: Any = Momentum(
            options.lr, options.momentum, nesterov=options.nesterov, velocity=velocity, finite="error"
        )
        self.model: Model = task.models[options.model]()
        self.model.compile(
            optimizer=self.optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )

    def hyperparameters(self) -> tuple[float, float]:
        """The learning rate and the momentum of this moment."""
        return float(self.optimizer.learning_rate), float(self.optimizer.momentum)

    def fit(self, watch: Watch) -> None:
        """Train on the training images, in a new order each epoch.

        Raises:
            Stopped: From the watch. The model is then as the last step left it.
        """
        import keras

        from polyak.keras import FiniteCheck

        watching = keras.callbacks.LambdaCallback(
            on_epoch_begin=watch.epoch_begin, on_train_batch_end=watch.batch_end, on_epoch_end=watch.epoch_end
        )
        try:
            self.model.fit(
                *self.data.train,
                batch_size=self.options.batch_size,
                epochs=self.options.epochs,
                validation_data=self.data.validation,
                verbose=0,
                callbacks=[watching, FiniteCheck()],
            )
        except FloatingPointError as error:
            what, _, _ = str(error).partition(". The step was left out")  # the rest is advice for another caller
            raise BadGradient(what[0].lower() + what[1:]) from None

    def test(self) -> tuple[float, float]:
        """Loss and accuracy on the test images."""
        scores = self.model.evaluate(*self.data.test, batch_size=self.options.batch_size, verbose=0, return_dict=True)
        return scores["loss"], scores["accuracy"]

    def save(self, path: Path) -> None:
        """The model with its optimizer's state. `import polyak.keras`, then `keras.models.load_model` reads it."""
        replace(path, self.model.save)

    def configuration(self) -> dict[str, Any]:
        """Everything that makes this run what it is."""
        options = vars(self.options)
        backend = import_module(BACKENDS[self.options.backend])
        packages = {name: version(name) for name in ("polyak", "keras", "numpy", "scikit-learn")}
        return {
            **options,
            "schedule": "none: the learning rate and the momentum are constant",
            "optimizer": self.optimizer.get_config(),
            "parameters": self.model.count_params(),
            "images": {name: len(part.labels) for name, part in self.data._asdict().items()},
            "versions": {"python": platform.python_version(), **packages, self.options.backend: backend.__version__},
            "platform": {"system": platform.platform(), "machine": platform.machine(), "python": sys.implementation.name},
        }
