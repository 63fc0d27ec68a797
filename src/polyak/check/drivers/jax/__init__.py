"""JAX: functions that return an `optax.GradientTransformation`, and such objects."""

from polyak.check.drivers.jax.subject import of_factory, of_function

__all__ = ["of_factory", "of_function"]
