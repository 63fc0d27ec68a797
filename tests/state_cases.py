"""The cases of the proof that state moves, for the workers and for the test that compares what they wrote."""

FRAMEWORKS = ("numpy", "torch", "jax", "keras-tensorflow", "keras-jax", "keras-torch")

SHAPES = {"dense/kernel": (3, 5), "dense/bias": (5,), "scale": (), "empty": (0, 4)}

# In float64 the hyperparameters are such that float32 holds them exactly, since Keras keeps its own in float32.
EXACT = {"lr": 0.125, "momentum": 0.875}
# In half precision PyTorch's operations round the product before the sum, which XLA does not: here products are exact.
POWERS = {"lr": 0.125, "momentum": 0.5}
CASES = {
    "gradient": ("float32", {"lr": 0.1, "momentum": 0.9}),
    "step, nesterov": ("float32", {"lr": 0.1, "momentum": 0.9, "velocity": "step", "nesterov": True}),
    "average, decoupled": (
        "float32",
        {"lr": 0.1, "momentum": 0.9, "velocity": "average"} | {"weight_decay": 0.01, "decay": "decoupled"},
    ),
    "coupled": ("float32", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "decay": "coupled"}),
    "float64": ("float64", EXACT | {"nesterov": True}),
    "bfloat16": ("bfloat16", POWERS),
    "schedule": ("float32", {"lr": "schedule", "momentum": 0.9}),
}
TELLS_STEPS = ("jax", "keras-tensorflow", "keras-jax", "keras-torch")


def takes_part(framework, case):
    """polyak.numpy has float32 and float64; NumPy and PyTorch leave schedules to their users."""
    return {"bfloat16": framework != "numpy", "schedule": framework in TELLS_STEPS}.get(case, True)
