"""Keras, on the backend of this process."""

from polyak.check.drivers.keras.subject import of_class, of_factory

__all__ = ["of_class", "of_factory"]
