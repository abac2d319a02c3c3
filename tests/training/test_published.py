"""Networks with the weights of a release compute what its own steps do, written out here in NumPy."""

import json
import re
from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from release_layers import Arrays, Shapes, correlate, layer, relu
from releases import RELEASES
from scipy.io import savemat
from test_originals import Storage, Tensor, write_torch

from jfusion import catalogue
from jfusion.baselines.spatiospectral.fusionnet import FUSIONNET
from jfusion.catalogue import Bands, Trained
from jfusion.cli import main
from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpatialResponse, box_psf
from jfusion.training import weights
from jfusion.training.loop import build
from jfusion.training.originals.assign import load_original
from jfusion.training.originals.published import arrays_of_network, has_originals, published
from unrolled.spfnet import SPFNET, SpfNet


def drawn(shapes: Shapes) -> Arrays:
    """Small numbers, positive for scales, variances and MatConvNet's moments."""
    rng = np.random.default_rng(5)
    arrays = {name: 0.3 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes}
    positive = re.compile(r".*(running_var|moving_variance|scale|layers/\d+/weights/2)")
    return {name: np.abs(a) + 0.1 if positive.match(name) else a for name, a in arrays.items()}


@pytest.mark.parametrize("name", RELEASES)
def test_a_network_computes_what_its_release_does(name: str) -> None:
    release = RELEASES[name]
    system, bands = catalogue.get(release.system), release.bands
    method = system.method
    assert isinstance(method, Trained)
    original, arrays = method.originals[release.place], drawn(release.shapes())
    network = build(system, bands, sizes=original.sizes | method.tiny | release.sizes)
    table = original.table(network)
    own = arrays_of_network(arrays, {name for name, _ in table.values()}, original.unused)
    load_original(network, own, table)
    network.eval()
    rng, side = np.random.default_rng(6), release.side
    y, z = rng.random((side, side, bands.lr)), rng.random((side * bands.ratio, side * bands.ratio, bands.guide))
    observation = {"lr": jnp.asarray(y[None], jnp.float32), "guide": jnp.asarray(z[None], jnp.float32)}
    centre = (bands.ratio - 1) / 2 if release.centre is None else release.centre
    grid = Grid(bands.ratio, (centre, centre))
    model = ObservationModel({"lr": SpatialResponse(box_psf(grid), bands.ratio, grid.phase)}, grid)
    found = nnx.jit(release.ours)(network, observation, model)
    expected = release.steps({name: a.astype(np.float64) for name, a in arrays.items()}, y, z)
    np.testing.assert_allclose(found[0], expected, atol=2e-4 * np.abs(expected).max())


def test_every_original_is_tested() -> None:
    rows = {name: row.method for name, row in catalogue.systems().items() if has_originals(row)}
    known = {(name, k) for name, method in rows.items() for k in range(len(method.originals))}  # type: ignore[union-attr]
    assert known == {(release.system, release.place) for release in RELEASES.values()} | {("cnn_fus", 0)}


# ----------------------------------------------------------------------------------------------------------------------
# Files


def matconvnet(a: Arrays, image: np.ndarray, noise: float) -> np.ndarray:
    """The layers of FFDNet's file, of which every second from the third on is a convolution."""
    height, width = image.shape
    x = np.full((height // 2, width // 2, 5), noise)
    for k in range(4):
        x[..., k] = image[k % 2 :: 2, k // 2 :: 2]
    last = len(a) - 2
    for k in range(0, len(a), 2):
        x = correlate(x, a[f"layers/{k + 2}/weights/0"]) + a[f"layers/{k + 2}/weights/1"].ravel()
        x = x if k == last else relu(x)
    out = np.zeros(image.shape)
    for k in range(4):
        out[k % 2 :: 2, k // 2 :: 2] = x[..., k]
    return out


def write_ffdnet(path: Path) -> Arrays:
    """A file in the published form with small random weights, and its arrays by place."""
    rng, sizes = np.random.default_rng(7), [5, *[64] * 14, 4]
    layers: list[dict] = [{"type": "SubP"}, {"type": "concat"}]
    arrays: Arrays = {}
    for k, (inputs, outputs) in enumerate(pairwise(sizes)):
        cell = np.empty((1, 2), object)
        cell[0] = [
            (rng.standard_normal((3, 3, inputs, outputs)) / np.sqrt(4 * inputs)).astype(np.float32),
            (rng.standard_normal((outputs, 1)) / 10).astype(np.float32),
        ]
        layers += [{"type": "conv", "weights": cell}, {"type": "relu"}]
        arrays |= {f"layers/{2 * k + 2}/weights/{j}": cell[0, j].astype(np.float64) for j in (0, 1)}
    net = np.empty((1, len(layers) - 1), object)
    net[0] = layers[:-1]
    savemat(path, {"net": {"layers": net}})
    return arrays


def test_ffdnet_file_gives_cnn_fus_its_denoiser(tmp_path: Path, capsys) -> None:
    arrays = write_ffdnet(tmp_path / "FFDNet.mat")
    command = ["import", "cnn_fus", str(tmp_path / "FFDNet.mat"), str(tmp_path / "net.safetensors")]
    command += ["--bands", "5", "2", "2"]
    assert main(command) == 2
    assert "no one number that images are divided by" in capsys.readouterr().err
    assert main([*command, "--scale", "7"]) == 0
    assert "CNN-Fus for 5 + 2 bands at ratio 2; images are divided by 7. The release" in capsys.readouterr().err
    network = weights.load(tmp_path / "net.safetensors")
    assert (network.bands, network.scale) == (Bands(5, 2, 2), 7)
    image = np.random.default_rng(8).random((6, 8))
    denoise = nnx.jit(lambda net, image: net(image, jnp.asarray(0.2)))
    expected = matconvnet(arrays, image, 0.2)
    found = denoise(network.module.denoiser, jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def published_shapes() -> Shapes:
    """FusionNet's at the published size."""
    yield from layer("conv1", 32, 8, 3, 3)
    for k in range(1, 5):
        yield from layer(f"res{k}.conv20", 32, 32, 3, 3)
        yield from layer(f"res{k}.conv21", 32, 32, 3, 3)
    yield from layer("conv3", 8, 32, 3, 3)


def tensor(array: np.ndarray, key: str) -> Tensor:
    strides = tuple(int(n) // array.itemsize for n in array.strides)
    return Tensor(Storage(key, "FloatStorage", array.ravel()), 0, array.shape, strides)


def write_checkpoint(path: Path) -> Arrays:
    """A file with the blocks' second names, an optimiser and a module around the network."""
    arrays = drawn(published_shapes())
    state = {f"module.{name}": tensor(a, name) for name, a in arrays.items()}
    state |= {f"module.backbone.{n[3]}{n[4:]}": tensor(a, n) for n, a in arrays.items() if n.startswith("res")}
    moments = {k: {"exp_avg": tensor(a, f"{k}")} for k, a in enumerate(arrays.values())}
    write_torch(path, "zip", {"state_dict": state, "optimizer": {"state": moments}, "epoch": 3})
    return arrays


def test_a_checkpoint_with_more_than_the_network(tmp_path: Path) -> None:
    arrays = write_checkpoint(tmp_path / "net.pth")
    network, original = published(FUSIONNET, tmp_path / "net.pth")
    assert (network.bands, network.scale, network.sizes) == (Bands(8, 1, 4), 2047, {})
    assert original.table(network.module)["tail/bias"][0] == "conv3.bias"
    np.testing.assert_array_equal(network.module.blocks[2].second.bias[...], arrays["res3.conv21.bias"])
    with pytest.raises(InputError, match=r"of another shape: head/kernel \(3, 3, 4, 32\) from conv1.weight"):
        published(FUSIONNET, tmp_path / "net.pth", bands=Bands(4, 1, 4))
    with pytest.raises(InputError, match=r"no published weights are known for vo_net; they are for .*fusionnet"):
        published(catalogue.get("vo_net"), tmp_path / "net.pth")


def test_a_published_network_keeps_its_sizes(tmp_path: Path) -> None:
    module = SpfNet(Bands(31, 3, 8), rngs=nnx.Rngs(0))
    shapes = {"/".join(map(str, path)): v.shape for path, v in nnx.to_flat_state(nnx.state(module, nnx.Param))}
    (original,) = SPFNET.method.originals  # type: ignore[union-attr]
    names = {name: shapes[path] for path, (name, _) in original.table(module).items()}
    write_torch(tmp_path / "net.pth", "zip", {n: tensor(np.zeros(s, np.float32), n) for n, s in names.items()})
    weights.save(tmp_path / "net.safetensors", published(SPFNET, tmp_path / "net.pth")[0])
    network = weights.load(tmp_path / "net.safetensors")
    assert network.sizes == {"negative": True}
    assert network.module.negative


def test_what_only_training_needs_is_left_out() -> None:
    one = np.ones(1)
    slots = ["net/a/Adam", "net/a/Adam_1", "beta1_power", "train/beta2_power", "global_step", "a.num_batches_tracked"]
    assert arrays_of_network({"net/a": one, **dict.fromkeys(slots, one)}, ["net/a"]) == {"net/a": one}
    assert arrays_of_network({"p.a": one, "p.c": one, "q.b": one}, ["a", "b"]) == {"a": one, "c": one}
    assert arrays_of_network({"a": one, "c.d": one, "x": one}, ["a"], r"c\..*") == {"a": one, "x": one}


def test_show_names_the_file(capsys) -> None:
    assert main(["show", "pannet"]) == 0
    assert "pannet.pth of the DLPan toolbox" in " ".join(capsys.readouterr().out.split())
    assert main(["show", "fusionnet", "--json"]) == 0
    assert [w["scale"] for w in json.loads(capsys.readouterr().out)["published_weights"]] == [2047, 2047]
