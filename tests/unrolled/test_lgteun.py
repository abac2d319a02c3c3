"""LGTEUN's own equations; what every network promises is in tests/test_catalogue.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from learning import every_parameter_learns

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.inference.run import count_parameters
from jfusion.operators import Grid, ObservationModel, SpatialResponse, SpectralResponse, gaussian_psf, upsample
from jfusion.training.losses import mean_absolute_error
from unrolled.lgteun import LGTEUN, Mixer, parts, polar

GRID = Grid(6, (2.5, 1.0))
BANDS = Bands(5, 2, 6)
SRF = jnp.asarray([[0.5, 0.5, 0, 0, 0], [0, 0, 0.2, 0.3, 0.5]])
SIZES = {"width": 8, "blocks": 1, "window": 4, "field": 16}


@pytest.fixture(scope="module")
def pair():
    """Observation, model and target of a scene (18, 12, 5), no whole windows, at ratio 6."""
    target = jax.random.uniform(jax.random.key(0), (18 * 12 * 5,)).reshape(1, 18, 12, 5)
    spatial = SpatialResponse(gaussian_psf(2.5, GRID), 6, GRID.phase)
    model = ObservationModel({"lr": spatial, "guide": SpectralResponse(SRF)}, GRID)
    return model(target), model, target


@pytest.mark.parametrize(
    ("bands", "stages", "thousands"), [(8, 1, 270.2), (8, 4, 1079.7), (4, 1, 101.2), (4, 2, 202.2)]
)
def test_parameters_are_those_of_the_papers_table(bands: int, stages: int, thousands: float) -> None:
    network = nnx.eval_shape(lambda: LGTEUN(Bands(bands, 1, 4), stages=stages, rngs=nnx.Rngs(0)))
    assert round(count_parameters(network) / 1000, 1) == thousands


@pytest.mark.parametrize("grid", [GRID, Grid.nested(4), Grid(8, (0.0, 7.0)), Grid(1, (0.0, 0.0))], ids=str)
def test_steps_lead_to_the_grid(grid: Grid) -> None:
    """The centre of a low-resolution pixel, carried up step by step, lies where the grid has it."""
    place, ratio = np.zeros(2), 1
    for step in reversed(parts(grid)):
        place, ratio = step.ratio * place + step.centre, ratio * step.ratio
    assert ratio == grid.ratio
    np.testing.assert_allclose(place, grid.centre)


def test_spectra_have_amplitude_and_phase_and_finite_derivatives() -> None:
    image = jax.random.normal(jax.random.key(0), (1, 8, 8, 1)).at[..., 4:, :].set(0)
    amplitude, phase = polar(jnp.fft.rfft2(image, axes=(1, 2)))
    np.testing.assert_allclose(amplitude * jnp.exp(1j * phase), jnp.fft.rfft2(image, axes=(1, 2)), atol=1e-4)

    def loss(image):
        return sum(jnp.sum(part**2) for part in polar(jnp.fft.rfft2(image, axes=(1, 2))))

    assert bool(jnp.isfinite(jax.grad(loss)(jnp.ones((1, 4, 4, 1)))).all())


def test_global_half_leaves_the_image_where_nothing_is_scaled() -> None:
    mixer = Mixer(4, 4, 1, 4, nnx.Rngs(0))
    for conv in (mixer.amplitude, mixer.phase):
        conv.kernel[...], conv.bias[...] = jnp.ones_like(conv.kernel[...]), jnp.zeros_like(conv.bias[...])
    image = jax.random.normal(jax.random.key(1), (2, 8, 4, 2))
    np.testing.assert_allclose(mixer.far(image), image, atol=1e-5)
    mixer.amplitude.kernel[...] = jnp.asarray([[[[2.0, 0.0]]]])
    np.testing.assert_allclose(mixer.far(image), image * jnp.asarray([2.0, 0.0]), atol=1e-5)


def test_blocks_are_transformed_as_images_of_their_size() -> None:
    """Two fields of a large image come out as each alone."""
    mixer = Mixer(4, 4, 1, 8, nnx.Rngs(0))
    image = jax.random.normal(jax.random.key(1), (1, 16, 4, 2))
    alone = [mixer.far(half) for half in jnp.split(image, 2, 1)]
    np.testing.assert_allclose(mixer.far(image), jnp.concatenate(alone, 1), atol=1e-5)
    assert float(jnp.abs(Mixer(4, 4, 1, 16, nnx.Rngs(0)).far(image) - mixer.far(image)).max()) > 0.01


def test_a_stage_goes_on_with_what_its_prior_gave(pair) -> None:
    observation, model, _ = pair
    network = LGTEUN(BANDS, rngs=nnx.Rngs(0), **SIZES)

    @nnx.jit
    def both(network):
        report = network(observation, model, stages=True)
        down, up = network.sensors.free["lr"]
        mix, unmix = network.sensors.free["guide"]
        grids = parts(GRID)

        def stage(k, z):
            error = up(down(z, grids) - observation["lr"], grids[::-1]) + unmix(mix(z) - observation["guide"])
            return network.stages[k].prior(z - 0.1 * error)

        first = upsample(observation["lr"], GRID)
        return report, jnp.stack([stage(0, first), stage(1, report.estimates[0])])

    report, expected = both(network)
    np.testing.assert_allclose(report.estimates, expected, atol=1e-4)
    np.testing.assert_allclose(report.steps["eta"], 0.1)


@pytest.mark.parametrize("physics", ["exact", "learned", "free"])
def test_every_physics_learns(physics, pair) -> None:
    network = LGTEUN(BANDS, stages=1, physics=physics, rngs=nnx.Rngs(0), **SIZES)
    every_parameter_learns(network, mean_absolute_error, pair)


def test_windows_must_tile_the_field() -> None:
    with pytest.raises(InputError, match="twice the window, 16"):
        LGTEUN(BANDS, window=8, field=24, rngs=nnx.Rngs(0))


def test_the_sign_of_rounding_is_no_phase():
    _, phase = polar(jnp.asarray([-1 + 1e-8j, -1 - 1e-8j, -1, 1 + 1e-8j, -1 - 0.1j], jnp.complex64))
    np.testing.assert_allclose(phase, [np.pi, np.pi, np.pi, 0, 0.1 - np.pi], atol=1e-3)
