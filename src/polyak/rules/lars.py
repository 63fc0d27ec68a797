"""LARS: momentum in which every tensor has a learning rate of its own, in proportion to the size of its weights.

    symbol   argument           meaning
    g        gradient           of the loss with respect to the weight w
    lr       learning_rate      size of the step
    eta      trust_coefficient  about how much of its norm a tensor changes by, at lr = 1 and without momentum
    m        momentum           in [0, 1): how much of the velocity survives a step
    wd       weight_decay       coefficient of the coupled decay
    v        slot "velocity"    past steps, geometrically weighted; 0 before the first step

    trust = eta |w| / (|g| + wd |w|)        1 where |w| or |g| is 0
    v <- m v + lr trust (g + wd w)          step = v

|w| and |g| are the Euclidean norms of a whole tensor. Without momentum and with lr = 1, a step is then at most eta |w| long,
however long the gradient is. Tensors with fewer than two dimensions (biases, the scales of normalisations) have trust 1 and no
decay: their norms are small and tell little.

The element arithmetic is that of heavy ball with velocity="step" and coupled decay; only the learning rate and the decay differ
from tensor to tensor. The velocity is in units of the weight.

Source: Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", arXiv:1708.03888, 2017, algorithm 1,
where lr is gamma, trust is lambda and wd is beta. It leaves norms of 0 and vectors open: trust is 1 at a norm of 0 as in timm,
and what becomes of vectors is as in pytorch_optimizer.

Departures from the peers: timm and pytorch_optimizer keep the velocity without lr (our velocity="gradient"), so that they part
from the paper when lr changes. timm adds 1e-8 to the denominator, and leaves trust at 1 where there is no decay, whatever the
tensor. pytorch_optimizer has another trust where |g| is 0 and |w| and wd are not: eta / wd. optax.lars keeps lr in the velocity
as the paper does; its denominator is |g + wd w|, and it leaves the exceptions for vectors to masks.
"""

from collections.abc import Mapping

from polyak.ops import Array, where
from polyak.rules.heavy_ball import step
from polyak.rules.rule import Rule


def trust(h: Mapping[str, Array], g_norm: Array, w_norm: Array) -> Array:
    """Trust = eta |w| / (|g| + wd |w|), and 1 where |w| or |g| is 0."""
    denominator = g_norm + h["weight_decay"] * w_norm
    ratio = h["trust_coefficient"] * w_norm / where(denominator == 0, 1, denominator)
    return where(w_norm == 0, 1, where(g_norm == 0, 1, ratio))


def per_tensor(h: Mapping[str, Array], g_norm: Array, w_norm: Array, dimensions: Array) -> dict[str, Array]:
    """The learning rate and the decay of a tensor: lr trust and wd, of vectors and scalars lr and 0."""
    alone = dimensions < 2
    rate = where(alone, 1, trust(h, g_norm, w_norm))
    return {"learning_rate": h["learning_rate"] * rate, "weight_decay": where(alone, 0, h["weight_decay"])}


LARS = Rule("lars", step, ("velocity",), ("learning_rate", "momentum"), per_tensor)
