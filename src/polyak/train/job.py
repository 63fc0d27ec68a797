"""The part of a run that Keras does: build, fit, evaluate, save."""

import hashlib
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from polyak.train.backends import BACKENDS, leave_tensorflow_out
from polyak.train.folder import replace
from polyak.train.optimizers import build_optimizer
from polyak.train.options import USUAL_BATCH, Options
from polyak.train.position import Length, Position
from polyak.train.tasks import Batched, Source, find, is_code, model
from polyak.train.tasks.task import Model
from polyak.train.watch import BadGradient, Stopped, Watch

FINGERPRINT = 64  # examples


class Job:
    """A model, its optimizer and its data. Made after `polyak.train.backends.use`; `build` makes it ready to train.

    Raises:
        ValueError: The data cannot be trained on, or an option does not fit it.
    """

    def __init__(self, options: Options) -> None:
        import keras

        if options.backend != "tensorflow" and not is_code(options.task):
            leave_tensorflow_out()
        keras.utils.set_random_seed(options.seed)  # Python, NumPy and the backend
        self.task = find(options.task, target=options.target, validation=options.validation, seed=options.seed)
        train = self.task.train
        if isinstance(train, Batched):
            self.options = options.for_examples(None)
            self.length = Length(options.epochs, len(train), 1, "batches")
        else:
            self.options = options.for_examples(len(train))
            self.length = Length(options.epochs, len(train), self.options.batch_size)
        self.model_name, build = model(self.task, options.model)
        self.model: Model = build()
        self.optimizer: Any = build_optimizer(options, steps=self.steps, steps_per_epoch=self.steps_per_epoch)
        self._metrics: dict[str, Any] = {}  # what they had summed up when the epoch was stopped that goes on

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.length.steps_per_epoch

    @property
    def steps(self) -> int:
        """Steps of the run."""
        return self.length.steps

    @property
    def _evaluation_batch(self) -> int:
        """Examples a step of evaluation: of examples to validate on beside batches to train on, as many as are usual."""
        return self.options.batch_size or USUAL_BATCH

    @property
    def parts(self) -> dict[str, tuple[int, str]]:
        """How much there is to train on, to validate on and to test with, and of what: examples or batches."""
        parts = {"train": self.task.train, "validation": self.task.validation, "test": self.task.test}
        return {
            name: (len(part), "batches" if isinstance(part, Batched) else "examples")
            for name, part in parts.items()
            if part is not None
        }

    def build(self) -> None:
        """Compile, and make all variables, so that they can be given the values of a checkpoint."""
        import keras

        from polyak.train.batches import first_of
        from polyak.train.snapshot import Generators

        if self.task.compiled:  # its own loss, metrics and way of running stay
            scaled = isinstance(self.model.optimizer, keras.optimizers.LossScaleOptimizer)
            self.model.optimizer = keras.optimizers.LossScaleOptimizer(self.optimizer) if scaled else self.optimizer
            self.model.steps_per_execution = 1  # a run can be stopped after every step
        else:
            self.model.compile(self.optimizer, loss=self.task.loss(), metrics=self.task.metrics())
        self.model._symbolic_build(data_batch=first_of(self.task.train))
        self._generators = Generators()

    def fit(self, watch: Watch, start: Position) -> None:
        """Train from a position to the end, in a new order each epoch.

        Raises:
            Stopped: From the watch. The model is then as the last step left it.
        """
        from polyak.keras import Averaged, ScheduleFree
        from polyak.train.batches import evaluation, training
        from polyak.train.callbacks import Callbacks, Following

        options, validation = self.options, self.task.validation
        callbacks = [Following(watch, self.steps_per_epoch, self._epoch_begins)]
        if isinstance(self.optimizer, ScheduleFree):
            callbacks.append(Averaged())  # after the other, whose checkpoints have the weights that are trained
        try:
            self.model.fit(
                training(self.task.train, options.batch_size, options.seed, start.epoch, start.batch, self._generators),
                epochs=options.epochs,
                initial_epoch=start.epoch,
                steps_per_epoch=self.steps_per_epoch,
                validation_data=None if validation is None else evaluation(validation, self._evaluation_batch),
                verbose=0,
                callbacks=Callbacks(callbacks, add_history=True, model=self.model, epochs=options.epochs),
            )
        except Stopped:
            if options.backend != "jax":  # where Keras does that itself
                self.finalize()
            raise
        except FloatingPointError as error:
            raise _bad_gradient(error) from None

    def finalize(self) -> None:
        """Put the moving averages of `use_ema` in the place of the weights, as `fit` does at its end."""
        if self.optimizer.use_ema:
            self.optimizer.finalize_variable_values(self.model.trainable_variables)

    def _epoch_begins(self) -> None:
        """Keras has reset the metrics; where the epoch goes on, they have something summed up already."""
        from polyak.train.snapshot import restore_metrics

        if self._metrics:
            restore_metrics(self.model, self._metrics)
            self._metrics = {}
        else:
            self._generators.epoch_begins()

    def numbers(self, logs: Mapping[str, Any]) -> dict[str, float]:
        """What Keras measured, as numbers."""
        from polyak.train.callbacks import numbers

        return numbers(logs)

    def hyperparameters(self) -> tuple[float, float | None]:
        """The learning rate and the momentum of this moment; None where there is no single momentum."""
        momentum = getattr(self.optimizer, "momentum", None)
        return float(self.optimizer.learning_rate), None if momentum is None else float(momentum)

    def check(self) -> None:
        """Raise BadGradient if a step was left out because a gradient was not finite."""
        from polyak.train.snapshot import synced

        synced(self.model)
        try:
            self.optimizer.check_finite()
        except FloatingPointError as error:
            raise _bad_gradient(error) from None

    def snapshot(self, others: Iterable[Any]) -> Callable[[Path], None]:
        """All that the job is at this moment; `others` are variables of the optimizer that are of no account.

        Returns:
            Writes it into a folder, whatever the job has become meanwhile.
        """
        from polyak.train.snapshot import Snapshot

        return Snapshot(self.model, self.optimizer, self._generators, others).write

    def restore(self, folder: Path, others: Iterable[Any], within: bool) -> None:
        """Become what was written, within an epoch or at its end."""
        from polyak.train import snapshot

        metrics = snapshot.restore(folder, self.model, self.optimizer, others)
        self._metrics = metrics if within else {}
        self._generators.read(folder)
        if not isinstance(self.task.train, Batched):  # batches are drawn again first
            self._generators.as_now()

    def averaged(self) -> AbstractContextManager[None]:
        """Within this context the weights are those to use, which are not those that ScheduleFree trains."""
        from polyak.keras import ScheduleFree

        optimizer = self.optimizer
        trained = isinstance(optimizer, ScheduleFree) and not optimizer._has_aside()
        return optimizer.averaged() if trained else nullcontext()

    def test(self) -> dict[str, float]:
        """What is measured on the test examples, if there are any."""
        from polyak.train.batches import evaluation

        if self.task.test is None:
            return {}
        with self.averaged():
            stream = evaluation(self.task.test, self._evaluation_batch)
            scores = self.model.evaluate(stream, verbose=0, return_dict=True)
        return {f"test_{name}": value for name, value in self.numbers(scores).items()}

    def save(self, path: Path) -> None:
        """The model with its optimizer's state. `import polyak.keras`, then `keras.models.load_model` reads it."""
        with self.averaged():
            replace(path, self.model.save)

    def environment(self) -> dict[str, Any]:
        """What the options made of the data, the model and the optimizer, and what they ran on."""
        task = self.task
        backend = import_module(BACKENDS[self.options.backend])
        packages = {name: version(name) for name in ("polyak", "keras", "numpy", "scikit-learn")}
        return {
            "task": task.name,
            "kind": task.kind,
            "main": task.main,
            "classes": task.classes,
            "notes": task.notes,
            "examples": {name: count for name, (count, _) in self.parts.items()},
            "data": None if isinstance(task.train, Batched) else fingerprint(task.train),
            "unit": self.length.unit,
            "model": self.model_name,
            "parameters": self.model.count_params(),
            "optimizer": {"class": type(self.optimizer).__name__, **self.optimizer.get_config()},
            "steps_per_epoch": self.steps_per_epoch,
            "backend": self.options.backend,
            "versions": {"python": platform.python_version(), **packages, self.options.backend: backend.__version__},
            "platform": {"system": platform.platform(), "machine": platform.machine(), "python": sys.implementation.name},
        }


def fingerprint(source: Source) -> str:
    """A checksum of some examples, evenly spaced, by which data that were changed or put in another order are known."""
    import keras

    numbers = np.unique(np.linspace(0, len(source) - 1, FINGERPRINT).astype(np.int64))
    digest = hashlib.sha256()
    for array in map(np.asarray, keras.tree.flatten(source.read(numbers))):
        # An array of texts holds where they are in memory.
        digest.update(repr(array.tolist()).encode() if array.dtype == object else array.tobytes())
    return digest.hexdigest()


def _bad_gradient(error: FloatingPointError) -> BadGradient:
    what, _, _ = str(error).partition(". The step was left out")  # the rest is advice for another caller
    return BadGradient(what[0].lower() + what[1:])
