"""Registration: displacements that were put into a pair are found, and the image comes back in its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from jfusion.errors import InputError
from jfusion.operators import (
    BlockAverage,
    Decimate,
    Displaced,
    Grid,
    ObservationModel,
    SpatialResponse,
    SpectralResponse,
    Warp,
    gaussian_psf,
)
from jfusion.operators.registration import (
    affine_field,
    aligned,
    displaced,
    inverse,
    mixture,
    register,
    shown,
    spatial_response,
)
from jfusion.solvers import conjugate_gradient

RATIO, SIZE, EDGE = 2, (24, 26), 6
GRID = Grid.nested(RATIO)
RESPONSE = SpatialResponse(gaussian_psf(0.9, GRID), RATIO, GRID.phase)
SRF = SpectralResponse(jnp.asarray(np.kron(np.eye(2), np.ones((1, 3))) / 3, jnp.float32))
MODEL = ObservationModel({"lr": RESPONSE, "guide": SRF}, GRID)
BLIND = MODEL.replace(operators={"lr": None, "guide": None})
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]
DOWN, ALONG = 2 * np.pi * ROWS / SIZE[0], np.pi * COLUMNS / SIZE[1]
BENT = np.stack([2 * np.sin(DOWN) * np.cos(ALONG), -2 * np.cos(ALONG)], -1)
DISPLACEMENTS = {
    "none": np.zeros((*SIZE, 2)),
    "shift": np.broadcast_to([3.0, -3.0], (*SIZE, 2)),
    "fraction": np.broadcast_to([-2.4, 0.3], (*SIZE, 2)),
    "turn": np.stack([1 + 0.04 * (COLUMNS - 12.5), -2 - 0.04 * (ROWS - 11.5)], -1),
    "field": BENT,
}


def large_scene() -> np.ndarray:
    """Textures of six bands, with a rim beyond the pair; no band is a mixture of the others."""
    rng = np.random.default_rng(3)
    shape = tuple(RATIO * (n + 2 * EDGE) for n in SIZE)
    textures = sum(gaussian_filter(rng.standard_normal((*shape, 6)), (s, s, 0)) * s for s in (1, 2, 6))
    spectra = gaussian_filter(rng.standard_normal((6, 6)), (0, 1.0))
    return (0.4 + 0.1 * textures @ spectra).astype(np.float32)


SCENE = large_scene()
INNER = np.s_[:, RATIO * EDGE : -RATIO * EDGE, RATIO * EDGE : -RATIO * EDGE]
TARGET = jnp.asarray(SCENE[None])[INNER]


def seen(displacement: np.ndarray) -> dict[str, jax.Array]:
    """The pair of `TARGET`, its low-resolution image displaced by splines and not by the operator that is tested."""
    blurred = np.asarray(RESPONSE.blur(jnp.asarray(SCENE)))
    start = np.reshape(GRID.centre, (2, 1, 1)) + RATIO * EDGE - np.reshape(GRID.shift, (2, 1, 1))
    place = RATIO * (np.stack([ROWS, COLUMNS]) + np.moveaxis(displacement, -1, 0)) + start
    lr = np.stack([map_coordinates(band, place, order=3) for band in np.moveaxis(blurred, -1, 0)], -1)
    noise = 0.002 * np.random.default_rng(5).standard_normal(lr.shape)
    return {"lr": jnp.asarray(lr + noise, jnp.float32)[None], "guide": SRF(TARGET)}


def missed(found: jax.Array, true: np.ndarray) -> float:
    """Mean length of the error, where the guide shows what the pixel shows."""
    place = np.stack([ROWS, COLUMNS], -1) + true
    inside = np.all((place >= 0) & (place <= np.array(SIZE) - 1), -1)
    return float(np.linalg.norm(np.asarray(found) - true, axis=-1)[inside].mean())


@pytest.mark.parametrize("name", DISPLACEMENTS)
@pytest.mark.parametrize("model", [MODEL, BLIND], ids=["known", "blind"])
def test_displacement_is_found(name: str, model: ObservationModel) -> None:
    true = DISPLACEMENTS[name]
    found = register(seen(true), model)
    assert missed(found.displacement, true) < 0.1
    assert float(found.explained.min()) > 0.9
    assert np.all(found.explained >= found.before - 1e-3)


def test_affine_part_is_told() -> None:
    found = register(seen(DISPLACEMENTS["turn"]), MODEL)
    np.testing.assert_allclose(found.affine[0], [1, -2], atol=0.05)
    np.testing.assert_allclose(found.affine[1:], [[0, -0.04], [0.04, 0]], atol=0.01)
    assert missed(affine_field(found.affine, SIZE), DISPLACEMENTS["turn"]) < 0.1
    assert "+1.0" in str(found)
    assert "turned by -2." in str(found)


def test_pixels_that_do_not_count_do_no_harm() -> None:
    observation = seen(DISPLACEMENTS["fraction"])
    cloud = np.s_[:, 4:14, 6:18]
    clouded = observation | {"lr": observation["lr"].at[cloud].set(2.0)}
    valid = jnp.ones(SIZE, bool).at[cloud[1:]].set(False)
    found = register(clouded, MODEL, valid)
    assert missed(found.displacement, DISPLACEMENTS["fraction"]) < 0.1


def test_valid_pixels_in_one_square_of_those_held_out_bend_least() -> None:
    """No other is left to say how much the surface may bend."""
    observation = {"lr": seen(DISPLACEMENTS["fraction"])["lr"][:, :, :24], "guide": SRF(TARGET)[:, :, :48]}
    valid = jnp.zeros((24, 24), bool).at[:6, :6].set(True)
    assert jnp.isfinite(register(observation, MODEL, valid).displacement).all()


@pytest.mark.parametrize("name", ["fraction", "field"])
def test_image_comes_back_in_its_place(name: str) -> None:
    true = jnp.asarray(DISPLACEMENTS[name], jnp.float32)
    observation = seen(DISPLACEMENTS[name])
    straight = RESPONSE(TARGET)
    visible = np.asarray(shown(true))
    assert 0.7 < visible.mean() < 1

    def error(image: jax.Array) -> float:
        return float(jnp.sqrt(jnp.mean((image - straight)[0][visible] ** 2)))

    once = aligned(observation, MODEL, true, mixture(observation, MODEL, true))
    blurry = aligned(observation, MODEL, true, jnp.zeros_like(TARGET))
    assert error(once) < error(blurry) < error(observation["lr"]) / 3
    assert error(aligned(observation, MODEL, true, TARGET)) < error(once)


def test_what_lr_does_not_show() -> None:
    down = jnp.broadcast_to(jnp.asarray([3.0, 0.0]), (*SIZE, 2))
    rows = np.arange(SIZE[0])
    np.testing.assert_array_equal(shown(down), np.broadcast_to((rows >= 3)[:, None], SIZE))
    valid = jnp.ones(SIZE, bool).at[10, 7].set(False)
    lost = np.argwhere(np.asarray(shown(down)) & ~np.asarray(shown(down, valid)))
    np.testing.assert_array_equal(lost, [[13, 7]])


def test_inverse_takes_a_displacement_back() -> None:
    field = jnp.asarray(BENT, jnp.float32)
    back = inverse(field)
    there = Warp(back)(field) + back
    np.testing.assert_allclose(there[4:-4, 4:-4], 0, atol=1e-3)


def test_displaced_response_is_the_composition_of_its_parts() -> None:
    """Where the displacement is of whole pixels of the high resolution, so that nothing is interpolated."""
    field = jnp.round(RATIO * jnp.asarray(BENT, jnp.float32)) / RATIO
    fine = jnp.repeat(jnp.repeat(RATIO * field, RATIO, 0), RATIO, 1)
    parts = Decimate(RATIO, GRID.phase) @ Warp(fine) @ RESPONSE.blur
    np.testing.assert_allclose(Displaced(RESPONSE, field)(TARGET), parts(TARGET), atol=1e-4)
    np.testing.assert_allclose(Displaced(RESPONSE, jnp.zeros(2))(TARGET), RESPONSE(TARGET), atol=1e-4)
    inside = Displaced(RESPONSE, jnp.asarray([-2.0, 0.4])).on_scene(SIZE)
    np.testing.assert_array_equal(inside, np.broadcast_to((np.arange(SIZE[0]) >= 2)[:, None], SIZE))


def test_displaced_image_is_the_smooth_one_between_its_pixels() -> None:
    expected = seen(BENT)["lr"]
    found = Displaced(RESPONSE, jnp.asarray(BENT, jnp.float32))(TARGET)
    assert float(jnp.abs(found - expected)[:, 5:-5, 5:-5].max()) < 0.01


def test_a_solver_over_operators_inverts_the_displaced_model() -> None:
    """Least squares in both images, from the displaced one as it is."""
    observation = seen(BENT)
    model = displaced(MODEL, jnp.asarray(BENT, jnp.float32))

    def solve(model: ObservationModel) -> jax.Array:
        rhs = sum(model[key].T(observation[key]) for key in observation)
        return conjugate_gradient(lambda x: sum(model[k].T(model[k](x)) for k in observation) + 1e-3 * x, rhs)[0]

    def error(x: jax.Array) -> float:
        return float(jnp.mean((x - TARGET)[:, 8:-8, 8:-8] ** 2))

    assert error(solve(model)) < error(solve(MODEL)) / 3


def test_mistakes_are_named() -> None:
    observation = seen(DISPLACEMENTS["none"])
    with pytest.raises(InputError, match="crop"):
        register(observation | {"guide": observation["guide"][:, 2:]}, MODEL)
    with pytest.raises(InputError, match="at least 12 x 12"):
        register({"lr": observation["lr"][:, :8], "guide": observation["guide"][:, :16]}, MODEL)
    with pytest.raises(InputError, match="BlockAverage"):
        spatial_response(MODEL.replace(operators={"lr": BlockAverage(2), "guide": SRF}))
