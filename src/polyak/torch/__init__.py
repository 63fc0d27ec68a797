"""PyTorch: momentum as a `torch.optim.Optimizer`.

    optimizer = polyak.torch.Momentum(model.parameters(), lr=0.1, momentum=0.9)

takes the place of `torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)`.
"""

from polyak.torch.momentum import Momentum

__all__ = ["Momentum"]
