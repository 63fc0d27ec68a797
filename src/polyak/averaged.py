"""The switch between the weights that ScheduleFree trains and their average, for front-ends that change weights in place."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def average_of(weight: Any, lead: Any, momentum: Any) -> Any:
    """The average x of the weights z, from the weight y that is trained and the slot; see `polyak.rules.schedule_free`."""
    return weight - lead * ((1 - momentum) / momentum)


class AverageSwitch:
    """Gives an optimizer `averaged()`. A subclass says how weights are put aside and brought back.

    The weights that were put aside are part of the optimizer's state, so that a checkpoint that is made within the context
    holds them. What is loaded from it has the average as its weights, and no step before those that were put aside are back.
    """

    _is_averaged = False

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the weights are their average: what is to be evaluated, saved and used.

            with optimizer.averaged():
                evaluate(model)

        After it, and after an error in it, they are bit for bit those that are trained. What is assigned to them within is
        lost. They are kept aside meanwhile, in memory of the same size.

        Raises:
            RuntimeError: Within the context already; and from `step` within it.
        """
        if self._is_averaged:
            raise RuntimeError("The weights are averaged already: `with optimizer.averaged()` cannot be nested.")
        self._is_averaged = True
        try:
            self._put_aside()
            yield
        finally:
            self._bring_back()
            self._is_averaged = False

    def _before_step(self) -> None:
        """Refuse a step from gradients that cannot have been taken at the weights that are trained."""
        if self._is_averaged:
            raise RuntimeError(
                "A step within `with optimizer.averaged()`, where the weights are the average. Leave the context first: the "
                "gradients must be taken where the weights are those that are trained."
            )
        if self._has_aside():
            raise RuntimeError(
                "The weights are the average, as they were when this optimizer's state was saved or copied within "
                "`with optimizer.averaged()`. `with optimizer.averaged(): pass` brings back those that are trained; take the "
                "gradients after that."
            )

    def _has_aside(self) -> bool:
        """Whether weights are kept aside."""
        raise NotImplementedError

    def _put_aside(self) -> None:
        """Keep the weights that are trained, unless they are kept already, and put the average in their place."""
        raise NotImplementedError

    def _bring_back(self) -> None:
        """Bring back what was kept, if anything was, and keep it no longer."""
        raise NotImplementedError
