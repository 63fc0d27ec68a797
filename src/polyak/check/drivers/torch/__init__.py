"""PyTorch."""

from polyak.check.drivers.torch.subject import of_class, of_factory

__all__ = ["of_class", "of_factory"]
