"""Every operator against every law of linear maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jfusion.errors import InputError
from jfusion.operators import (
    BlockAverage,
    Blur,
    Composition,
    Decimate,
    Displaced,
    Grid,
    Identity,
    Mask,
    SpatialResponse,
    SpectralResponse,
    Warp,
    box_psf,
    dot_test,
    gaussian_psf,
    mtf_psf,
    mtf_response,
    one_psf,
)

SHAPE = (6, 8, 3)
RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.random(shape), jnp.float32)


SRF = SpectralResponse(draw(2, 3))
HALF = SpatialResponse((draw(3), draw(4)), 2, (1, 0), "reflect")
OPERATORS = {
    "identity": Identity(),
    "blur, kernel, circular": Blur(draw(3, 3), "circular"),
    "blur, even kernel, reflect": Blur(draw(4, 2), "reflect"),
    "blur, kernel, valid": Blur(draw(2, 3), "valid"),
    "blur, kernel a band": Blur(draw(3, 3, 3), "reflect"),
    "blur, profiles": Blur((draw(5), draw(3)), "circular"),
    "blur, profiles a band": Blur((draw(3, 3), draw(3)), "reflect"),
    "blur, gaussian": Blur(gaussian_psf(0.4, Grid(1, (0.0, 0.0))), "reflect"),
    "decimate": Decimate(2, (0, 1)),
    "block average": BlockAverage(2),
    "response, kernel": SpatialResponse(draw(3, 4), 2, (1, 1), "circular"),
    "response, profiles": HALF,
    "response, blocks": SpatialResponse(draw(2, 2, 3), 2, (0, 0), "reflect"),
    "response, valid": SpatialResponse(draw(3, 3), 2, (0, 1), "valid"),
    "spectral": SRF,
    "mask": Mask(draw(6, 8) > 0.5),
    "warp, one shift": Warp(jnp.asarray([0.3, -1.6])),
    # between pixels, where the interpolation is differentiable
    "warp, field": Warp(jnp.asarray(RNG.integers(-2, 2, (6, 8, 2)) + RNG.uniform(0.3, 0.7, (6, 8, 2)), jnp.float32)),
    "displaced, one shift": Displaced(HALF, jnp.asarray([0.3, -0.8])),
    "displaced, field": Displaced(
        HALF, jnp.asarray(RNG.integers(-1, 2, (3, 4, 2)) + RNG.uniform(0.1, 0.4, (3, 4, 2)), jnp.float32)
    ),
    "composition": SRF @ HALF,
    "adjoint": HALF.T,
}
# too many taps to be applied by shifts
FOURIER = {boundary: Blur(draw(12, 11), boundary) for boundary in ("circular", "reflect", "valid")}
FOURIER["valid, decimated"] = SpatialResponse(draw(11, 13), 2, (1, 0), "valid")

parametrize = pytest.mark.parametrize("name", OPERATORS)


def shape_of(name):
    return (3, 4, 3) if name == "adjoint" else SHAPE


def cast(tree, dtype):
    return jax.tree.map(lambda v: v.astype(dtype) if jnp.issubdtype(v.dtype, jnp.floating) else v, tree)


def matrix(operator, shape):
    """Dense matrix of an operator, by applying it to a batch of unit images."""
    size = int(np.prod(shape))
    return np.asarray(operator(jnp.eye(size).reshape(size, *shape)), np.float64).reshape(size, -1).T


def check_dot(operator, shape):
    for seed in range(3):
        assert dot_test(operator, shape, jax.random.key(seed)) < 1e-5
    with jax.enable_x64(True):
        operator = cast(operator, jnp.float64)
        for seed in range(3):
            assert dot_test(operator, shape, jax.random.key(seed), jnp.float64) < 1e-10


@parametrize
def test_adjoint_passes_the_dot_test(name):
    check_dot(OPERATORS[name], shape_of(name))


@pytest.mark.parametrize("name", FOURIER)
def test_adjoint_of_large_kernels_passes_the_dot_test(name):
    check_dot(FOURIER[name], (14, 15, 2) if name != "valid, decimated" else (14, 16, 2))


@parametrize
def test_adjoint_is_the_transposed_matrix_and_shapes_are_as_said(name):
    operator, shape = OPERATORS[name], shape_of(name)
    image = jax.eval_shape(operator, jax.ShapeDtypeStruct(shape, jnp.float32)).shape
    assert operator.input_shape(image) == shape
    assert operator.input_shape((2, *image)) == (2, *shape)
    np.testing.assert_allclose(matrix(operator.T, image), matrix(operator, shape).T, atol=1e-6)
    np.testing.assert_array_equal(operator.T.T(jnp.ones(shape)), operator(jnp.ones(shape)))


@pytest.mark.parametrize("name", ["spectral", "response, profiles", "adjoint"])
def test_norm_is_the_largest_singular_value(name):
    operator, shape = OPERATORS[name], shape_of(name)
    largest = np.linalg.norm(matrix(operator, shape), 2)
    norm = jax.jit(lambda o: o.norm(shape, 100))(operator)
    assert float(norm) == pytest.approx(largest, rel=5e-3)
    assert norm <= largest * (1 + 1e-5)


@parametrize
def test_batch_is_a_loop_and_jit_changes_nothing(name):
    operator = OPERATORS[name]
    x = draw(2, 2, *shape_of(name))
    together = jax.jit(lambda o, x: o(x))(operator, x)
    for i, j in np.ndindex(2, 2):
        np.testing.assert_allclose(together[i, j], operator(x[i, j]), atol=2e-6)
    np.testing.assert_allclose(jax.vmap(jax.vmap(operator))(x), together, atol=2e-6)


@parametrize
def test_derivative_in_the_image_and_in_the_arrays(name):
    operator, shape = cast(OPERATORS[name], jnp.float32), shape_of(name)
    x = draw(*shape)
    leaves, structure = jax.tree.flatten(operator)
    real = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def loss(x, arrays):
        full = list(leaves)
        for i, array in zip(real, arrays, strict=True):
            full[i] = array
        return jnp.sum(structure.unflatten(full)(x) ** 2)

    arguments = (x, [leaves[i] for i in real])
    evaluate = jax.jit(jax.value_and_grad(loss, (0, 1)))
    _, gradient = evaluate(*arguments)
    assert all(jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(gradient))
    direction = jax.tree.map(lambda v: draw(*v.shape) - 0.5, arguments)
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True)
    slope = float(sum(jnp.vdot(g, d) for g, d in pairs))
    step = 1e-2
    ahead, behind = (
        float(evaluate(*jax.tree.map(lambda v, d, s=s: v + s * step * d, arguments, direction))[0]) for s in (1, -1)
    )
    assert (ahead - behind) / (2 * step) == pytest.approx(slope, rel=2e-2, abs=2e-2)


def test_composition_is_the_product_of_matrices():
    composed = SRF @ HALF
    assert isinstance(composed, Composition)
    product = matrix(SRF, (3, 4, 3)) @ matrix(HALF, SHAPE)
    np.testing.assert_allclose(matrix(composed, SHAPE), product, atol=1e-6)


@parametrize
def test_dtype_of_the_image_is_kept(name):
    half = jax.eval_shape(OPERATORS[name], jax.ShapeDtypeStruct(shape_of(name), jnp.bfloat16))
    assert half.dtype == jnp.bfloat16


def test_box_psf_on_a_nested_grid_is_the_block_average():
    for ratio in (1, 2, 3):
        grid = Grid.nested(ratio)
        box = SpatialResponse(box_psf(grid), ratio, grid.phase, "reflect")
        shape = (2 * ratio, 3 * ratio, 1)
        np.testing.assert_allclose(matrix(box, shape), matrix(BlockAverage(ratio), shape), atol=1e-6)


def test_psfs_sum_to_one_and_are_centred_on_the_low_resolution_pixel():
    beyond = Grid(2, (-0.3, 1.5)), Grid(3, (-0.5, 2.5))
    for grid in (Grid.nested(2), Grid.nested(3), Grid(4, (1.25, 2.75)), Grid(2, (1.0, 0.0)), *beyond):
        for psf in (gaussian_psf(1.3, grid), box_psf(grid), mtf_psf(jnp.asarray([0.3, 0.4]), grid)):
            for profile, shift in zip(psf, grid.shift, strict=True):
                offset = profile.shape[0] // 2 - np.arange(profile.shape[0])
                np.testing.assert_allclose(profile.sum(0), 1, atol=1e-6)
                np.testing.assert_allclose(np.tensordot(offset, profile, 1), shift, atol=5e-3)


def test_mtf_psf_has_the_gain_at_the_nyquist_frequency():
    grid = Grid(4, (0.0, 0.0))
    vertical, _ = mtf_psf(jnp.asarray([0.25, 0.35]), grid)
    position = np.arange(vertical.shape[0]) - vertical.shape[0] // 2
    np.testing.assert_allclose(np.cos(np.pi * position / 4) @ vertical, [0.25, 0.35], atol=5e-3)


MISTAKES = {
    "no image": (lambda: HALF(jnp.ones((4, 4))), "height, width, band"),
    "empty": (lambda: HALF(jnp.ones((0, 4, 1))), "empty"),
    "odd size": (lambda: HALF(jnp.ones((7, 8, 1))), "crop to 6 x 8"),
    "boundary": (lambda: Blur(draw(3, 3), "mirror")(jnp.ones(SHAPE)), "circular, reflect, valid"),
    "psf beyond image": (lambda: Blur((draw(20), draw(3)), "reflect")(jnp.ones(SHAPE)), "does not fit"),
    "psf beyond valid": (lambda: Blur((draw(7), draw(3)), "valid")(jnp.ones(SHAPE)), "does not fit"),
    "fourier psf": (lambda: Blur(draw(12, 12), "valid")(jnp.ones(SHAPE)), "does not fit"),
    "bands": (lambda: SRF(jnp.ones((4, 4, 5))), "3 bands, but the image has 5"),
    "mask": (lambda: Mask(draw(3, 3))(jnp.ones(SHAPE)), "crop one"),
    "warp": (lambda: Warp(jnp.zeros(2))(jnp.ones((4, 4))), "height, width, band"),
    "ratio": (lambda: Grid(0, (0.0, 0.0)), "integer of at least 1"),
    "fractional ratio": (lambda: Grid(2.5, (0.0, 0.0)), "integer of at least 1"),
    "centre": (lambda: Grid(2, (1.6, 0.0)), "between -0.5 and ratio - 0.5 = 1.5"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name):
    call, message = MISTAKES[name]
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("separable", [True, False])
def test_one_psf_is_the_mean_over_bands(separable):
    grid = Grid.nested(3)
    response = mtf_response([0.2, 0.4, 0.3], grid)
    profiles = response.psf
    if not separable:
        response = SpatialResponse(profiles[0][:, None] * profiles[1][None], 3, grid.phase)
    one = one_psf(response)
    for mean, parts in zip(jax.tree.leaves(one.psf), jax.tree.leaves(response.psf), strict=True):
        np.testing.assert_allclose(mean, np.mean(parts, axis=-1), atol=1e-6)
    assert one(draw(1, 9, 9, 5)).shape == (1, 3, 3, 5)
    for operator in (one, Identity(), None):
        assert jax.tree.all(jax.tree.map(lambda a, b: a is b, one_psf(operator), operator))


@pytest.mark.parametrize("name", ["blur, profiles", "response, kernel", "response, blocks", "spectral", "mask"])
def test_integers_are_numbers(name):
    """Digital numbers as a reader gives them: weights below one must not become zero."""
    x = RNG.integers(0, 4000, SHAPE)
    np.testing.assert_allclose(OPERATORS[name](x.astype(np.uint16)), OPERATORS[name](x.astype(np.float32)), rtol=1e-6)


def test_a_profile_a_band_beside_one_for_all_on_blocks():
    vertical, horizontal, x = draw(2, 3), draw(2), draw(*SHAPE)
    both = [(vertical, horizontal), (vertical, jnp.repeat(horizontal[:, None], 3, 1))]
    mixed, full = (SpatialResponse(psf, 2, (0, 0))(x) for psf in both)
    np.testing.assert_allclose(mixed, full, rtol=1e-6)
    np.testing.assert_allclose(Decimate(2, (0, 0))(Blur(both[0])(x)), full, rtol=1e-5)


def test_a_gaussian_narrower_than_its_pixels_is_shared_by_the_nearest():
    for profile in gaussian_psf(0.03, Grid.nested(2)):
        np.testing.assert_allclose(profile[jnp.argsort(-profile)][:3], [0.5, 0.5, 0], atol=1e-6)


@pytest.mark.parametrize("separable", [False, True])
def test_an_mtf_looks_where_another_response_does(separable):
    grid = Grid.nested(4)
    shifted = SpatialResponse(gaussian_psf(1.5, grid, beside=(1.5, -2)), 4, grid.phase)
    if not separable:
        shifted = SpatialResponse(shifted.psf[0][:, None] * shifted.psf[1], 4, grid.phase)
    for profile, expected in zip(mtf_response(0.3, grid, shifted).psf, (0.5 + 1.5, 0.5 - 2), strict=True):
        centre = len(profile) // 2 - jnp.arange(len(profile)) @ profile
        np.testing.assert_allclose(centre, expected, atol=0.02)


def test_nothing_has_the_norm_zero():
    assert Mask(jnp.zeros(SHAPE[:2])).norm(SHAPE) == 0


@pytest.mark.parametrize("psf", [draw(17, 17), (draw(17), draw(17))], ids=["kernel", "profiles"])
def test_a_psf_larger_than_the_image_goes_round_it(psf):
    image = draw(6, 8, 2)
    seen = SpatialResponse(psf, 2, (0, 1), "circular")(image)
    around = SpatialResponse(psf, 2, (0, 1), "circular")(jnp.tile(image, (3, 3, 1)))
    np.testing.assert_allclose(seen, around[:3, :4], rtol=2e-4, atol=2e-5)


def test_half_precision_passes_a_fourier_transform():
    response, image = SpatialResponse(draw(17, 17) / 144, 2, (0, 0), "circular"), draw(18, 18, 3).astype(jnp.bfloat16)
    seen = response(image)
    assert seen.dtype == jnp.bfloat16
    np.testing.assert_allclose(seen.astype(jnp.float32), response(image.astype(jnp.float32)), rtol=1e-2)
