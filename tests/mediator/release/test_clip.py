from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mediator import tensors
from mediator.errors import Code, Denied
from mediator.release.clip import clip, clip_with_noise, noise_bytes, update_norm
from mediator.types import Dtype, TensorSpec


def _model(weight: Any, count: int = 3, bias: Any = (0.0,)) -> dict[str, Any]:
    return {
        "bias": np.array(bias, "<f8"),
        "count": np.array(count, "<i8"),
        "weight": np.array(weight, "<f4"),
    }


def _norm(output: dict[str, Any], given_: dict[str, Any]) -> float:
    """The norm once more, in the plainest way."""
    return math.sqrt(
        math.fsum(
            (float(a) - float(b)) ** 2
            for name in output
            if output[name].dtype.kind == "f"
            for a, b in zip(output[name].ravel(), given_[name].ravel(), strict=True)
        )
    )


def test_a_short_update_leaves_as_it_is() -> None:
    output, base = _model([0.1, 0.2]), _model([0.0, 0.0])
    released = clip(output, base, 1.0)
    assert released["weight"].tobytes() == output["weight"].tobytes()


def test_a_long_update_is_scaled_over_all_tensors_together() -> None:
    released = clip(_model([3.0, 0.0], bias=(4.0,)), _model([0.0, 0.0]), 1.0)
    np.testing.assert_allclose(released["weight"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(released["bias"], [0.8], rtol=1e-6)


def test_it_is_the_update_that_is_clipped_and_not_the_weights() -> None:
    base = _model([1000.0, -1000.0])
    released = clip(_model([1003.0, -1004.0]), base, 1.0)
    np.testing.assert_allclose(released["weight"] - base["weight"], [0.6, -0.8], atol=1e-4)


def test_a_message_in_an_integer_tensor_does_not_leave() -> None:
    for factor in (1.0, 1000.0):
        assert clip(_model([factor], count=2**62 + 17), _model([0.0], count=5), 1.0)["count"] == 5


numbers = st.floats(-1e6, 1e6, width=32)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any], float]:
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=6))
    bias = st.floats(-1e6, 1e6)
    made = [
        {
            "bias": draw(hnp.arrays("<f8", 3, elements=bias)),
            "count": np.array(draw(st.integers(-9, 9)), "<i8"),
            "weight": draw(hnp.arrays("<f4", shape, elements=numbers)),
        }
        for _ in range(2)
    ]
    return made[0], made[1], draw(st.floats(1e-6, 1e5))


@given(pairs())
def test_no_released_update_is_longer_than_the_permit_allows(pair: tuple[Any, Any, float]) -> None:
    output, base, limit = pair
    flushed = {name: tensors.flush(item) for name, item in base.items()}
    released = tensors.parse(
        tensors.encode(clip(output, flushed, limit)),
        [TensorSpec(name, tuple(item.shape), tensors.dtype_of(item)) for name, item in output.items()],
    )
    assert _square(released, flushed) <= Fraction(limit) ** 2
    assert update_norm(released, flushed) <= limit
    assert update_norm(output, flushed) == pytest.approx(_norm(output, flushed), rel=1e-9)


def test_rounding_does_not_push_a_large_model_over_the_limit() -> None:
    # float32 cannot hold 1e6 + a small step exactly: nearest rounding alone would overshoot
    rng = np.random.default_rng(3)
    base = {"w": (rng.normal(size=100_000) * 1e4).astype("<f4")}
    output = {"w": (base["w"] + rng.normal(size=100_000).astype("<f4")).astype("<f4")}
    for limit in (0.01, 1.0, 100.0):
        released = clip(output, base, limit)
        assert update_norm(released, base) <= limit and _norm(released, base) <= limit
        assert _norm(released, base) > 0.5 * limit or limit < 1, "and no shorter than rounding makes it"


_edge = st.one_of(
    numbers,
    st.sampled_from([0.0, 1.1754943508222875e-38, 1.2e-38, -1.2e-38, 1e-30, 1.0, 1 + 2**-23, 16777216.0, -3e38]),
)


@settings(max_examples=300)
@given(hnp.arrays("<f4", 7, elements=_edge), hnp.arrays("<f4", 7, elements=_edge), st.data())
@example(np.array([3e38] * 7, "<f4"), np.zeros(7, "<f4"), None)
def test_not_even_rounding_lets_an_update_over_the_bound(output: Any, base: Any, data: Any) -> None:
    """The exact norm, of the float32 values that leave, and at the edges: bounds that the update just meets, bounds of
    a subnormal's size, values that rounding or flushing moves."""
    output, base = {"w": tensors.flush(output)}, {"w": tensors.flush(base)}
    norm = update_norm(output, base)
    limits = [norm * (1 + step * 2**-53) for step in (-4, -2, 0, 2, 4)] + [norm / 3, 1.0, 1e-38, 5e-324]
    limit = data.draw(st.sampled_from(limits)) if data is not None else 1.0
    if not 0 < limit < 1e6:
        return
    released = clip(output, base, limit)
    assert _square(released, base) <= Fraction(limit) ** 2
    if norm <= limit / 2:
        assert released["w"].tobytes() == output["w"].tobytes(), "what is short leaves as it is"


def _square(output: dict[str, Any], given_: dict[str, Any]) -> Fraction:
    """The norm's square, exactly."""
    return sum(
        (
            (Fraction(float(a)) - Fraction(float(b))) ** 2
            for name in output
            if output[name].dtype.kind == "f"
            for a, b in zip(output[name].ravel(), given_[name].ravel(), strict=True)
        ),
        Fraction(),
    )


def test_an_update_that_overflows_is_refused() -> None:
    big = np.finfo("<f8").max
    with pytest.raises(Denied) as caught:
        clip(_model([0.0], bias=(big,)), _model([0.0], bias=(-big,)), 1.0)
    assert caught.value.reasons[0].code is Code.NOT_FINITE


def test_squares_that_would_overflow_do_not() -> None:
    assert update_norm(_model([0.0], bias=(3e200, 4e200)), _model([0.0], bias=(0.0, 0.0))) == pytest.approx(5e200)
    released = clip(_model([0.0], bias=(3e200, 4e200)), _model([0.0], bias=(0.0, 0.0)), 1.0)
    np.testing.assert_allclose(released["bias"], [0.6, 0.8])


def test_no_update_at_all_divides_nothing_by_zero() -> None:
    base = _model([1.0, 2.0])
    assert clip(base, base, 1.0)["weight"].tobytes() == base["weight"].tobytes()


# --- noise ----------------------------------------------------------------------------------------------------

SPECS = [TensorSpec("bias", (1,), Dtype.F64), TensorSpec("count", (), Dtype.I64), TensorSpec("weight", (3,), Dtype.F32)]


def test_noise_is_drawn_for_float_elements_in_full_pairs() -> None:
    assert noise_bytes(SPECS) == 2 * 8 + 4 * 8


def test_noise_has_the_permits_deviation_around_the_clipped_update() -> None:
    size = 200_000
    base = {"w": np.zeros(size, "<f4")}
    output = {"w": np.full(size, 5.0, "<f4")}
    random_bytes = np.random.default_rng(5).bytes(noise_bytes([TensorSpec("w", (size,), Dtype.F32)]))
    released = clip_with_noise(output, base, 2.0, 0.5, random_bytes)["w"]
    assert released.std() == pytest.approx(1.0, rel=0.01)
    assert released.mean() == pytest.approx(2.0 / math.sqrt(size), abs=0.01)


def test_another_number_of_random_bytes_is_our_bug() -> None:
    base = _model([0.0] * 3)
    for count in (0, noise_bytes(SPECS) - 8, noise_bytes(SPECS) + 8):
        with pytest.raises(ValueError, match="random bytes"):
            clip_with_noise(base, base, 1.0, 1.0, b"\x00" * count)


def test_noise_leaves_integers_as_they_came_in() -> None:
    random_bytes = np.random.default_rng(5).bytes(noise_bytes(SPECS))
    released = clip_with_noise(_model([1.0] * 3, count=99), _model([0.0] * 3, count=5), 1.0, 1.0, random_bytes)
    assert released["count"] == 5
    assert {item.dtype.str for item in released.values()} == {"<f8", "<i8", "<f4"}


def test_noise_beyond_the_type_is_refused() -> None:
    top = float(np.finfo("<f4").max)
    random_bytes = b"\x00" * noise_bytes(SPECS)  # the largest radius, angle 0
    with pytest.raises(Denied):
        clip_with_noise(_model([top] * 3), _model([top] * 3), 1e5, 1e38, random_bytes)
