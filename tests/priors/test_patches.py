"""Patches lie in their image, anywhere, and hold its pixels."""

import jax
import jax.numpy as jnp
import numpy as np

from priors.patches import corners, cut


def test_corners_are_all_that_fit():
    places = np.asarray(corners(jax.random.key(0), (4, 6), (3, 6), 50))
    assert places.shape == (50, 2)
    assert set(places[:, 0]) == {0, 1}
    assert set(places[:, 1]) == {0}


def test_patches_hold_the_pixels_of_their_place():
    image = jnp.arange(2 * 5 * 7, dtype=jnp.float32).reshape(1, 5, 7, 2)
    patches = cut(image, jnp.asarray([[0, 0], [2, 4]]), (3, 3))
    np.testing.assert_array_equal(patches, np.stack([image[0, :3, :3], image[0, 2:5, 4:7]]))
