"""Run folders made quickly: a quadratic that `polyak.numpy` trains, recorded as `polyak train` records."""

import csv
import json
import math

import numpy as np

from polyak.numpy import Lion, Momentum

VERSIONS = {"python": "3.13.0", "polyak": "0.1.0", "keras": "3.15.0"}
CONFIG = {
    "weight_decay": None, "decay": None, "global_clipnorm": None, "clipnorm": None, "clipvalue": None, "groups": None,
    "cautious": False, "cautious_decay": False, "gradient_accumulation_steps": None,
}  # fmt: skip


def record(
    folder,
    *,
    lr=0.05,
    momentum=0.9,
    nesterov=False,
    velocity="gradient",
    lion=False,
    curvature=None,
    noise=0.0,
    steps=400,
    every=4,
    epochs=4,
    seed=0,
    label="momentum",
    frozen=(),
    batches=None,
    seconds=0.5,
    **result,
):
    """Train and write everything that a complete run leaves; returns the folder.

    `curvature` is the second derivative along each weight, by layer; `noise` the standard deviation of what is added to each
    gradient; `frozen` layers have the gradient 0; `batches` is the number of steps an epoch that is claimed, 1 for batches that
    are the whole data; `seconds` is the wall clock of an epoch. The rest is for result.json.
    """
    rng = np.random.default_rng(seed)
    curvature = curvature or {"model/dense/kernel": np.geomspace(0.02, 1, 200), "model/dense/bias": np.full(20, 0.3)}
    w = {name: rng.normal(size=len(h)) for name, h in curvature.items()}
    if lion:
        optimizer, config = Lion(w, lr), {"class": "Lion", "b1": 0.9, "b2": 0.99}
    else:
        optimizer = Momentum(w, lr, momentum, nesterov=nesterov, velocity=velocity)
        config = {"class": "Momentum", "momentum": momentum, "nesterov": nesterov, "velocity": velocity, "dampening": 0.0}
    value = lambda: float(sum(0.5 * (h * w[name] ** 2).sum() for name, h in curvature.items()))  # noqa: E731
    accuracy = lambda loss: 1 / (1 + loss)  # noqa: E731
    rows, layers, seen, metrics, passed = [], [], [], [], []
    for step in range(1, steps + 1):
        seen.append(value())
        passed.append(seen[-1])
        g = {n: (h * w[n] + noise * rng.normal(size=len(h))) * (n not in frozen) for n, h in curvature.items()}
        slot = "velocity"
        before = {n: v.copy() for n, v in optimizer.slots.get(slot, {}).items()}
        old = {n: x.copy() for n, x in w.items()}
        optimizer.step(g)
        if step % every == 0:
            moved = {n: old[n] - w[n] for n in w}
            after = optimizer.slots.get(slot, {})
            loss = float(np.mean(seen))
            seen = []
            rate = math.nan if lion else lr if velocity == "average" else lr / (1 - momentum)
            total = [_norms(_flat(x) for x in (g, after, moved, old)), _cosine(_flat(g), _flat(before))]
            promise = -float(_flat(g) @ _flat(moved))
            epoch = 1 + (step - 1) * epochs // steps
            m = math.nan if lion else momentum
            rows.append([step, epoch, loss, accuracy(loss), lr, m, rate, *total[0], total[1], promise])
            for n in w:
                of = _norms([g[n], after.get(n, np.empty(0)), moved[n], old[n]])
                layers.append([step, n, *of, _cosine(g[n], before.get(n, np.empty(0)))])
        if step * epochs // steps > (step - 1) * epochs // steps:
            loss, now = float(np.mean(passed)), value()
            passed = []
            metrics.append(
                [len(metrics) + 1, step, loss, accuracy(loss), now, accuracy(now), lr, math.nan if lion else momentum]
            )
    folder.mkdir(parents=True)
    _write(folder / "metrics.csv", "epoch,step,loss,accuracy,val_loss,val_accuracy,learning_rate,momentum", metrics)
    _write(folder / "timing.csv", "epoch,seconds", [[n, seconds * n] for n in range(1, epochs + 1)])
    norms = "gradient_norm,velocity_norm,step_norm,weight_norm,cosine"
    head = f"step,epoch,loss,accuracy,learning_rate,momentum,effective_learning_rate,{norms},predicted_change"
    _write(folder / "steps.csv", head, rows)
    _write(folder / "layers.csv", f"step,layer,{norms}", layers)
    options = f'task = "quadratic"\noptimizer = "{label}"\nlr = {lr}\nepochs = {epochs}\nbatch_size = 32\nseed = {seed}\n'
    (folder / "config.toml").write_text(options)
    environment = {
        "task": "quadratic", "model": "bowl", "backend": "numpy", "kind": "classification", "main": "accuracy",
        "parameters": sum(map(len, w.values())), "examples": {"train": 3200, "validation": 100, "test": 100},
        "steps_per_epoch": batches or steps // epochs, "notes": ["column <id> dropped: every value is another"],
        "versions": VERSIONS, "optimizer": {"learning_rate": lr, **CONFIG, **config},
    }  # fmt: skip
    (folder / "environment.json").write_text(json.dumps(environment))
    last = dict(zip(("val_loss", "val_accuracy"), metrics[-1][4:6], strict=True))
    test = {"test_loss": last["val_loss"], "test_accuracy": last["val_accuracy"]}
    ended = {"status": "completed", "epochs": epochs, "step": steps, "stopped": None, **last, **test}
    (folder / "result.json").write_text(json.dumps(ended | result))
    return folder


def _flat(arrays):
    return np.concatenate([*arrays.values()]) if arrays else np.empty(0)


def _norms(arrays):
    return [float(np.linalg.norm(a)) if len(a) else math.nan for a in arrays]


def _cosine(a, b):
    size = np.linalg.norm(a) * np.linalg.norm(b) if len(b) else 0
    return float(a @ b / size) if size else math.nan


def _write(path, head, rows):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head.split(","))
        # As the recording writes them: shortest decimals of float32, an empty cell where there is no number.
        with np.errstate(over="ignore"):  # an infinity
            writer.writerows(
                [["" if x != x else str(np.float32(x)) if isinstance(x, float) else x for x in row] for row in rows]
            )
