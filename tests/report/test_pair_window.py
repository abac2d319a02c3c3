"""The window of a scene that the page about a pair shows."""

import jax.numpy as jnp
import numpy as np

from jfusion.operators import Grid, ObservationModel, SpatialResponse, gaussian_psf
from jfusion.operators.registration import displaced
from jfusion.report.compare import psf_picture
from jfusion.report.pair import part_of, sensor_responses

GRID = Grid.nested(2)
MODEL = ObservationModel({"lr": SpatialResponse(gaussian_psf(0.9, GRID), 2, GRID.phase), "guide": None}, GRID)


def test_a_displacement_is_cut_to_the_window() -> None:
    field = jnp.asarray(np.random.default_rng(0).random((8, 9, 2)), jnp.float32)
    window = slice(2, 5), slice(3, 9)
    assert part_of(MODEL, *window) is MODEL
    np.testing.assert_array_equal(part_of(displaced(MODEL, field), *window)["lr"].displacement, field[window])


def test_responses_are_called_after_where_they_come_from() -> None:
    def labels(known: ObservationModel, used: ObservationModel) -> list[str]:
        found = sensor_responses(known, used, None)
        return [] if found is None else list(found.psf)

    blind = MODEL.replace(operators={"lr": None, "guide": None})
    assert labels(blind, blind) == []
    assert labels(MODEL, MODEL) == labels(MODEL, displaced(MODEL, jnp.zeros(2))) == ["from the tables"]
    sharp = SpatialResponse(gaussian_psf(0.5, GRID), 2, GRID.phase)
    assert labels(blind, MODEL.replace(operators={"lr": sharp, "guide": None})) == ["estimated"]
    assert labels(blind, displaced(blind, jnp.zeros(2))) == ["assumed"]


def test_the_psf_of_a_displaced_image_is_shown() -> None:
    np.testing.assert_array_equal(psf_picture(displaced(MODEL, jnp.zeros(2)), 9), psf_picture(MODEL, 9))
