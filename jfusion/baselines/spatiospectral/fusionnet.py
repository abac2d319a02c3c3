"""FusionNet: a small residual network that injects the details of a pan image, band by band.

Deng, Vivone, Jin, Chanussot, "Detail Injection-Based Deep Convolutional Neural Networks for Pansharpening", IEEE TGRS
59(8), 2021, doi:10.1109/TGRS.2020.3031366; code: github.com/liangjiandeng/FusionNet and the DLPan toolbox.

With M the interpolated low-resolution image ("EXP") and P the pan image repeated for every band,

    product = M + f(P - M)

where f is a 3x3 convolution to 32 channels with ReLU, four residual blocks (3x3, ReLU, 3x3, plus the identity; no
normalisation) and a 3x3 convolution back to the bands: 78,632 parameters for 8 bands, 76,324 for 4.

Training: mean squared error, Adam at a constant 3e-4, batches of 32 patches of 64 x 64 pan pixels, data divided by
2^11 - 1. The authors' TensorFlow code makes 200,100 steps and starts from truncated-normal variance scaling (so does
this); the DLPan port makes 400 epochs from PyTorch's default initialisation.

Differences from the release:

- The release clips the product to [0, 1] when it tests (DLPan does not). Here it is not clipped.
- M comes from the 23-tap interpolator of the toolboxes; the release's training data were interpolated bicubically.
- More than one guide band (the paper has one): P of band k is the combination of the guide's bands and a constant that
  fits that band of the same image best by least squares at low resolution, as in hypersharpening (Selva et al., IEEE
  JSTARS 8(6), 2015). With one guide band P is the guide, as published.
"""

import optax
from flax import nnx
from jax import Array

from jfusion.catalogue import Bands, Original, Paper, Recipe, System, Table, Trained
from jfusion.classical.hypersharpening import guide_per_band
from jfusion.layers.conv import Conv
from jfusion.layers.init import tf_variance_scaling
from jfusion.layers.layouts import slim_layer
from jfusion.layers.residual import DLPAN_UNUSED, ResidualBlock, dlpan_layers
from jfusion.operators.observation import Observation, ObservationModel
from jfusion.operators.resample import upsample
from jfusion.tasks import SPATIOSPECTRAL
from jfusion.training.losses import mean_squared_error


class FusionNet(nnx.Module):
    """The network of Deng et al., 2021; the guide comes in as one image a band, so only `bands.lr` changes a shape."""

    def __init__(self, bands: Bands, *, width: int = 32, blocks: int = 4, rngs: nnx.Rngs) -> None:
        self.head = Conv(bands.lr, width, 3, kernel_init=tf_variance_scaling, rngs=rngs)
        self.blocks = nnx.List(ResidualBlock(width, rngs=rngs) for _ in range(blocks))
        self.tail = Conv(width, bands.lr, 3, kernel_init=tf_variance_scaling, rngs=rngs)

    def __call__(self, observation: Observation, model: ObservationModel) -> Array:
        """`(batch, height, width, bands)`, in the units of the observation, from "lr" and "guide"."""
        interpolated = upsample(observation["lr"], model.grid, "interp23")
        details = guide_per_band(observation, model) - interpolated
        features = nnx.relu(self.head(details))
        for block in self.blocks:
            features = block(features)
        return interpolated + self.tail(features)


def _toolbox(network: FusionNet) -> Table:
    return dlpan_layers(len(network.blocks))


def _release(network: FusionNet) -> Table:
    """Convolutions in the order of the image's way, as TF-Slim counts them."""
    blocks = [f"blocks/{k}/{part}" for k in range(len(network.blocks)) for part in ("first", "second")]
    table: Table = {}
    for k, path in enumerate(["head", *blocks, "tail"]):
        table |= slim_layer(path, f"net/Conv_{k}" if k else "net/Conv")
    return table


FUSIONNET = System(
    name="fusionnet",
    title="FusionNet",
    family="cnn",
    tasks=SPATIOSPECTRAL,
    paper=Paper(
        authors="L.-J. Deng, G. Vivone, C. Jin, J. Chanussot",
        year=2021,
        title="Detail Injection-Based Deep Convolutional Neural Networks for Pansharpening",
        venue="IEEE Transactions on Geoscience and Remote Sensing 59(8)",
        doi="10.1109/TGRS.2020.3031366",
        code="https://github.com/liangjiandeng/FusionNet",
    ),
    summary="A residual network turns the difference of the guide and the interpolated image into the missing details.",
    method=Trained(
        network=FusionNet,
        loss=mean_squared_error,
        recipe=Recipe(
            optimiser=lambda steps: optax.adam(3e-4),
            steps=200_100,
            patch=64,
            batch=32,
            note="Mean squared error, Adam at a constant 3e-4; images divided by their 99.9 % quantile (paper: 2047).",
        ),
        tiny={"width": 8, "blocks": 1},
        originals=(
            Original(
                file="fusionnet.pth of the DLPan toolbox for WorldView-2 and -3; QuickBird and WorldView-4 have the "
                "bands 4 1 4",
                table=_toolbox,
                bands=Bands(8, 1, 4),
                scale=2047,
                unused=DLPAN_UNUSED,
            ),
            Original(
                file="models/pre-trained-wv3/model-200000.ckpt of the authors' TensorFlow code; that for GaoFen-2 has "
                "another network, which is not offered",
                table=_release,
                bands=Bands(8, 1, 4),
                scale=2047,
                note="It has learned from bicubic interpolation. On the 100 patches that come with it, its details are "
                "too strong and worse than none.",
            ),
        ),
    ),
    differences="The product is not clipped to [0, 1]; 23-tap instead of bicubic interpolation; with several guide "
    "bands, the least-squares combination for each band takes the guide's place.",
    parameters=(78_632, Bands(8, 1, 4)),
)
