"""The cases of the proof that state moves, for the workers and for the test that compares what they wrote."""

FRAMEWORKS = ("numpy", "torch", "jax", "keras-tensorflow", "keras-jax", "keras-torch")

SHAPES = {"dense/kernel": (3, 5), "dense/bias": (5,), "scale": (), "empty": (0, 4)}

# In float64 the hyperparameters are such that float32 holds them exactly, since Keras keeps its own in float32.
EXACT = {"lr": 0.125, "momentum": 0.875}
# In half precision PyTorch's operations round the product before the sum, which XLA does not: here products are exact.
POWERS = {"lr": 0.125, "momentum": 0.5}
# Case -> method, dtype, arguments.
CASES = {
    "gradient": ("Momentum", "float32", {"lr": 0.1, "momentum": 0.9}),
    "step, nesterov": ("Momentum", "float32", {"lr": 0.1, "momentum": 0.9, "velocity": "step", "nesterov": True}),
    "average, decoupled": (
        "Momentum",
        "float32",
        {"lr": 0.1, "momentum": 0.9, "velocity": "average"} | {"weight_decay": 0.01, "decay": "decoupled"},
    ),
    "coupled": ("Momentum", "float32", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "decay": "coupled"}),
    "float64": ("Momentum", "float64", EXACT | {"nesterov": True}),
    "bfloat16": ("Momentum", "bfloat16", POWERS),
    "schedule": ("Momentum", "float32", {"lr": "schedule", "momentum": 0.9}),
    "Lion": ("Lion", "float32", {"lr": 0.01, "b1": 0.9, "b2": 0.99}),
    "AggMo": ("AggMo", "float32", {"lr": 0.1, "momenta": (0.0, 0.9, 0.99)}),
    "ScheduleFree": ("ScheduleFree", "float32", {"lr": 0.1, "momentum": 0.9}),
    # The same layout and roles everywhere, for PyTorch has the outputs first, and Keras takes the last kernel for the head.
    "Muon": (
        "Muon",
        "float64",
        EXACT | {"output_axis": {"*kernel": -1}, "roles": {"*kernel": "orthogonal", "*": "other"}},
    ),
}
# Of methods that agree with each other to rounding only, how closely the weights do after 100 steps. Muon's second rule has a
# learning rate of 0.01 and a momentum of 0.9, which Keras keeps in float32.
NEAR = {"Muon": 1e-6}
# What is state, and is taken over by an optimizer that was made with something else.
ELSEWHERE = {
    "Momentum": {"lr": 0.5, "momentum": 0.5},
    "Lion": {"lr": 0.5, "b1": 0.5, "b2": 0.5},
    "AggMo": {"lr": 0.5},
    "ScheduleFree": {"lr": 0.5, "momentum": 0.5},
    "Muon": {"lr": 0.5, "momentum": 0.5},
}


def origins(case):
    """For each framework of a case the one whose half it goes on with: another one in each case, until all pairs have met."""
    taking = [framework for framework in FRAMEWORKS if takes_part(framework, case)]
    shift = 1 + list(CASES).index(case) % (len(taking) - 1)
    return {target: taking[i - shift] for i, target in enumerate(taking)}


def takes_part(framework, case):
    """polyak.numpy has float32 and float64; PyTorch leaves schedules to its schedulers."""
    return {"bfloat16": framework != "numpy", "schedule": framework != "torch"}.get(case, True)
