"""Muon without a framework: roles, matrices, scales, and the rule against the recursion with an SVD."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from polyak.matrices import Matrices
from polyak.rules.directed import DIRECTED
from polyak.rules.heavy_ball import heavy_ball
from polyak.rules.muon import muon, shape_scale
from polyak.rules.orthogonal import orthogonalise
from polyak.rules.roles import Report, assign
from polyak.update import pipeline

# Scales.


def test_scales() -> None:
    tall, wide = Matrices((12, 3)), Matrices((3, 12))
    assert shape_scale("spectral", tall) == 2
    assert shape_scale("spectral", wide) == 1
    assert shape_scale("match_rms_adamw", tall) == shape_scale("match_rms_adamw", wide) == 0.2 * math.sqrt(12)
    assert shape_scale("spectral", Matrices((12, 3), split=2)) == math.sqrt(2)
    with pytest.raises(ValueError, match="'spectral', 'match_rms_adamw'; got 'original'"):
        shape_scale("original", tall)  # type: ignore[arg-type]


def test_match_rms_adamw_gives_the_elements_their_size() -> None:
    g = np.random.default_rng(0).standard_normal((40, 10))
    step = shape_scale("match_rms_adamw", Matrices(g.shape)) * orthogonalise(g, "polar_express", 8)
    assert np.sqrt(np.mean(step**2)) == pytest.approx(0.2, rel=1e-9)


# The rule.


def polar(g: Any) -> Any:
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    return u @ vt


@pytest.mark.parametrize("decay", [None, "decoupled"])
@pytest.mark.parametrize("scale", ["spectral", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 20)])
def test_the_recursion_with_an_svd(shape: tuple[int, int], nesterov: bool, scale: Any, decay: Any) -> None:
    rng = np.random.default_rng(0)
    w = start = rng.standard_normal(shape)
    gradients = rng.standard_normal((10, *shape))
    lr, m, wd = 0.25, 0.75, 0.125 if decay else 0.0
    update = pipeline(muon(Matrices(shape), nesterov=nesterov, scale=scale, steps=8), decay)
    values = {"learning_rate": lr, "momentum": m, "weight_decay": wd}
    h = update.Hyperparameters(*(values[name] for name in update.Hyperparameters._fields))
    slots = (np.zeros(shape),)
    expected, v = start, np.zeros(shape)
    factor = math.sqrt(max(1, shape[0] / shape[1])) if scale == "spectral" else 0.2 * math.sqrt(max(shape))
    for g in gradients:
        w, slots = update.apply(g, w, slots, h)
        v = m * v + (1 - m) * g
        direction = m * v + (1 - m) * g if nesterov else v
        expected = expected - lr * wd * expected - lr * factor * polar(direction)
    # 8 steps are exact to 2e-15, and singular values above 0.01 of the norm amplify rounding by less than 1,000.
    np.testing.assert_allclose(w, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(slots[0], v, rtol=0, atol=1e-12)


def test_the_size_of_the_gradient_does_not_count() -> None:
    update = pipeline(muon(Matrices((5, 7))))
    g = np.random.default_rng(0).standard_normal((5, 7))
    h = update.Hyperparameters(learning_rate=1.0, momentum=0.5)
    one, _ = update.step(g, g, (0 * g,), h)
    other, _ = update.step(2.0**40 * g, g, (0 * g,), h)
    np.testing.assert_array_equal(one, other)


def test_several_arrays_at_once() -> None:
    """Along dimensions before theirs; none sees the others."""
    rng = np.random.default_rng(0)
    g, w, v = rng.standard_normal((3, 2, 3, 4, 5))
    update = pipeline(muon(Matrices((4, 5), -1, split=5)), "decoupled", cautious=True)
    h = update.Hyperparameters(learning_rate=0.5, momentum=0.5, weight_decay=0.25)
    together, (slot,) = update.apply(g, w, (v,), h)
    for i in np.ndindex(2, 3):
        alone, (own,) = update.apply(g[i], w[i], (v[i],), h)
        np.testing.assert_allclose(together[i], alone, rtol=0, atol=1e-12)  # the sums may be in another order
        np.testing.assert_array_equal(slot[i], own)


def test_the_same_arguments_give_the_same_rule() -> None:
    """So that what is compiled for it serves again."""
    assert muon(Matrices((2, 3)), steps=3) is muon(Matrices((2, 3)), steps=3)
    assert muon(Matrices((2, 3)), steps=3) is not muon(Matrices((2, 3)), steps=4)
    assert pipeline(muon(Matrices((2, 3)))) is pipeline(muon(Matrices((2, 3))))
    assert muon(Matrices((2, 3))).whole


@pytest.mark.parametrize("wrong", [{"steps": True}, {"steps": 0}, {"polynomial": "cubic"}, {"scale": "none"}, {"nesterov": 2}])
def test_wrong_options(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=f"{min(wrong)} must be"):
        muon(Matrices((2, 3)), **wrong)


# Roles.

SHAPES: dict[str, tuple[int, ...]] = {
    "embed.weight": (100, 8),
    "blocks.0.attn.qkv.weight": (24, 8),
    "blocks.0.attn.qkv.bias": (24,),
    "blocks.0.heads.1.key.weight": (8, 8),
    "stem.conv.weight": (16, 3, 3, 3),
    "norm.weight": (8,),
    "temperature": (),
    "lm_head.weight": (100, 8),
}


def roles(shapes: Any = SHAPES, known: Any = None, split: Any = None, output_axis: Any = None, **given: Any) -> Any:
    axes = given.get("axes", {})
    return assign(
        shapes, known=known or {}, axes=axes, roles=given.get("roles", {}), split=split or {}, output_axis=output_axis or {}
    )


def test_default_roles() -> None:
    assert {name: (p.role, p.why) for name, p in roles().items()} == {
        "embed.weight": ("other", "named as an embedding"),
        "blocks.0.attn.qkv.weight": ("orthogonal", "a matrix"),
        "blocks.0.attn.qkv.bias": ("other", "fewer than two dimensions"),
        "blocks.0.heads.1.key.weight": ("orthogonal", "a matrix"),
        "stem.conv.weight": ("orthogonal", "outputs x the rest"),
        "norm.weight": ("other", "fewer than two dimensions"),
        "temperature": ("other", "fewer than two dimensions"),
        "lm_head.weight": ("other", "named as an output head"),
    }


@pytest.mark.parametrize(
    "name", ["wte", "wpe", "tok_emb", "token_embedding", "embeddings", "pos_embed", "patch_embed", "cls_token"]
)
def test_names_of_embeddings(name: str) -> None:
    assert roles({f"encoder.{name}.weight": (4, 4), "fc.weight": (4, 4)})[f"encoder.{name}.weight"].role == "other"


@pytest.mark.parametrize("name", ["head", "lm_head", "classifier", "mlp_head", "logits", "unembed"])
def test_names_of_heads(name: str) -> None:
    assert roles({f"{name}.weight": (4, 4), "fc.weight": (4, 4)})[f"{name}.weight"].why == "named as an output head"


@pytest.mark.parametrize("name", ["gpt/lm_head/kernel", "lm_head", "gpt.lm_head/kernel"])
def test_names_have_parts_in_every_framework(name: str) -> None:
    assert roles({name: (4, 4), "fc/kernel": (4, 4)})[name].why == "named as an output head"
    assert roles({name.replace("lm_head", "tokens"): (4, 4), "a": (4, 4)})[name.replace("lm_head", "tokens")].role == "other"


@pytest.mark.parametrize("name", ["multihead_attn", "heads", "header", "embedder_free", "member", "wide"])
def test_names_of_neither(name: str) -> None:
    assert roles({f"{name}.weight": (4, 4)})[f"{name}.weight"].role == "orthogonal"


def test_patterns_come_first_and_the_first_decides() -> None:
    given = {"embed.*": "orthogonal", "*.key.weight": "other", "*.weight": "orthogonal"}
    shapes = {name: shape for name, shape in SHAPES.items() if name != "norm.weight"}
    found = roles(shapes, known={"embed.weight": "an embedding"}, roles=given)
    assert found["embed.weight"].why == "roles['embed.*']"
    assert found["blocks.0.heads.1.key.weight"].role == "other"
    assert found["lm_head.weight"].role == "orthogonal"


def test_what_is_known_comes_before_names() -> None:
    found = roles(known={"stem.conv.weight": "the first layer"})
    assert (found["stem.conv.weight"].role, found["stem.conv.weight"].why) == ("other", "the first layer")


def test_split_and_axes_by_pattern() -> None:
    axes = {"stem.conv.weight": 2, "blocks.0.heads.1.key.weight": 1}
    found = roles(split={"*.qkv.weight": 3}, output_axis={"stem.*": 1}, axes=axes)
    assert found["blocks.0.heads.1.key.weight"].matrices == Matrices((8, 8), 1, 1)
    assert found["blocks.0.attn.qkv.weight"].matrices == Matrices((24, 8), 0, 3)
    assert found["stem.conv.weight"].matrices == Matrices((16, 3, 3, 3), 1, 1)


def test_several_output_dimensions_by_pattern() -> None:
    shapes = {"query/kernel": (6, 2, 4), "key/kernel": (6, 2, 4), "out/kernel": (2, 4, 6)}
    found = roles(shapes, output_axis={"query/*": (-2, -1), "out/*": [2]}, axes={"key/kernel": (1, 2)})
    assert {name: p.matrices for name, p in found.items()} == {
        "query/kernel": Matrices((6, 2, 4), (-2, -1)),
        "key/kernel": Matrices((6, 2, 4), (1, 2)),
        "out/kernel": Matrices((2, 4, 6), (2,)),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roles": {"*.w": "other"}}, r"roles has patterns that fit no parameter.*\['\*\.w'\]"),
        ({"roles": {"*": "orthogonal", "lm_head.*": "other"}}, r"left by those before them: \['lm_head"),
        ({"roles": {"norm.weight": "orthogonal"}}, r"'norm.weight' cannot be orthogonalised"),
        ({"roles": {"stem.*": "muon"}}, r"A role is .*got 'muon'"),
        ({"split": {"*.value.weight": 2}}, r"split has patterns that fit no parameter"),
        ({"split": {"lm_head.weight": 2}}, r"fits 'lm_head.weight', which is not orthogonalised: named as an output head"),
        ({"split": {"*.qkv.weight": 5}}, r"'blocks.0.attn.qkv.weight' cannot be .*split=5 does not divide the 24"),
        ({"output_axis": {"*.qkv.weight": 2}}, r"output_axis=2 is no dimension"),
        ({"output_axis": {"nothing": 1}}, r"output_axis has patterns that fit no parameter"),
    ],
)
def test_wrong_patterns(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        roles(**options)


def test_nothing_to_orthogonalise() -> None:
    with pytest.raises(ValueError, match="no parameter to orthogonalise") as error:
        roles({"embed.weight": (5, 3), "bias": (3,)})
    for line in (
        r"embed.weight  5 x 3  other                   named as an embedding",
        r"bias          3      other                   fewer than two dimensions",
    ):
        assert line in str(error.value)


def test_a_report_is_a_table() -> None:
    found = roles(split={"*.qkv.weight": 3}).values()
    lines = str(Report(tuple(replace(p, scale=0.5 if p.matrices else None) for p in found))).splitlines()
    assert len(lines) == len(SHAPES) + 1
    assert lines[0].split() == ["parameter", "shape", "role", "matrices", "scale", "why"]
    assert "24 x 8          orthogonal  3 of 8 x 8  0.5    a matrix" in lines[2]
    assert "scalar" in lines[7]


# The step in two parts, as front-ends make it whose kernels see one element at a time.


@pytest.mark.parametrize(
    ("decay", "options"),
    [(None, {}), ("decoupled", {}), (None, {"cautious": True}), ("decoupled", {"cautious": True, "cautious_decay": True})],
)
@pytest.mark.parametrize("nesterov", [False, True])
def test_a_direction_makes_the_step_of_the_rule(decay: Any, options: dict[str, Any], nesterov: bool) -> None:
    matrices = Matrices((4, 3), output_axis=1, split=3)
    g, w, v = np.random.default_rng(0).standard_normal((3, 4, 3))
    numbers = {"learning_rate": 0.25, "momentum": 0.75, "weight_decay": 0.5, "scale": -0.5}

    def apply(update: Any, w: Any, slots: Any, **others: Any) -> Any:
        h = numbers | others
        return update.apply(g, w, slots, update.Hyperparameters(*(h[name] for name in update.Hyperparameters._fields)))

    whole = pipeline(muon(matrices, nesterov=nesterov, scale="match_rms_adamw"), decay, scale=True, **options)
    expected, (velocity,) = apply(whole, w, (v,))
    momentum = pipeline(heavy_ball(velocity="average", nesterov=nesterov), scale=True)
    direction, (found,) = apply(momentum, np.zeros_like(w), (v,), learning_rate=-1.0)
    np.testing.assert_array_equal(found, velocity)
    orthogonal = matrices.back(orthogonalise(matrices.of(direction[None])))[0]
    last = pipeline(DIRECTED, decay, scale=True, **options)
    stepped, (kept,) = apply(last, w, (orthogonal,), factor=shape_scale("match_rms_adamw", matrices))
    np.testing.assert_allclose(stepped, expected, rtol=1e-15, atol=1e-15)  # products in another order
    np.testing.assert_array_equal(kept, orthogonal)
