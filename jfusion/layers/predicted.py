"""Spectral responses that a small network predicts from an image."""

from __future__ import annotations

import jax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands
from jfusion.layers.conv import Conv
from jfusion.layers.init import torch_bias
from jfusion.operators import SpectralResponse


class PredictedSrf(nnx.Module):
    """A row of the guide's response for each of its bands, ``softmax(w2 relu(w1 mean(image)))`` with its own weights.

    Args:
        bands: of the pair.
    """

    def __init__(self, bands: Bands, *, rngs: nnx.Rngs) -> None:
        rows, columns, hidden = bands.guide, bands.lr, max(bands.lr // 2, 1)
        self.shape = (rows, columns)
        self.squeeze = Conv(columns, rows * hidden, 1, bias_init=torch_bias(columns), rngs=rngs)
        self.excite = Conv(rows * hidden, rows * columns, 1, groups=rows, bias_init=torch_bias(hidden), rngs=rngs)

    def __call__(self, image: Array) -> SpectralResponse:
        """The operator for an image ``(1, height, width, band)``, of which its mean counts."""
        logits = self.excite(jax.nn.relu(self.squeeze(image.mean((1, 2), keepdims=True))))
        return SpectralResponse(jax.nn.softmax(logits.reshape(self.shape), -1))
