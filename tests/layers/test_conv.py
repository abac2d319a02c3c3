"""Every form of the convolution against plain `lax`, in value and in both derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from jfusion.errors import InputError
from jfusion.layers.conv import Conv, ConvTranspose, conv, conv_transpose
from jfusion.layers.init import tf_he_normal, tf_truncated_normal, tf_variance_scaling, torch_bias, torch_kernel

SPACE = "DHW"


def draw(seed, *shapes):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


def plain(x, w, pads, strides=1, dilation=1, spread=1, groups=1):
    rank = w.ndim - 2
    numbers = (f"N{SPACE[-rank:]}C", f"{SPACE[-rank:]}IO", f"N{SPACE[-rank:]}C")
    return lax.conv_general_dilated(
        x, w, (strides,) * rank, pads, (spread,) * rank, (dilation,) * rank, numbers, feature_group_count=groups
    )


def assert_same(ours, theirs, *operands):
    """Equal values, and equal derivatives of a weighted sum."""

    @jax.jit
    def both(*operands):
        y, pull = jax.vjp(ours, *operands)
        z, push = jax.vjp(theirs, *operands)
        weights = jnp.cos(jnp.arange(z.size, dtype=z.dtype)).reshape(z.shape)
        return (y, *pull(weights)), (z, *push(weights))

    for a, b in zip(*both(*operands), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, np.abs(b).max()))


SQUARE = ((1, 1), (1, 1))
GEOMETRIES = {
    "3x3": {"window": (3, 3), "padding": SQUARE},
    "3x3, fewer channels out": {"window": (3, 3), "padding": SQUARE, "out": 2},
    "even window, uneven border": {"window": (4, 4), "padding": ((1, 2), (2, 1))},
    "oblong window, valid": {"window": (1, 5), "padding": ((0, 0), (0, 0))},
    "border wider than the window": {"window": (3, 3), "padding": ((4, 3), (0, 5))},
    "negative border": {"window": (3, 3), "padding": ((-1, 1), (1, -2))},
    "3x3 stride 2": {"window": (3, 3), "padding": ((0, 1), (1, 1)), "strides": 2},
    "6x6 stride 4": {"window": (6, 6), "padding": SQUARE, "strides": 4},
    "3x3 stride 4, with gaps": {"window": (3, 3), "padding": SQUARE, "strides": 4},
    "dilation 2": {"window": (3, 3), "padding": ((2, 2), (2, 2)), "dilation": 2},
    "stride 2, dilation 3": {"window": (3, 3), "padding": ((3, 2), (2, 3)), "strides": 2, "dilation": 3},
    "1x1": {"window": (1, 1), "padding": ((0, 0), (0, 0))},
    "1x1 with a border": {"window": (1, 1), "padding": SQUARE},
    "1x1 stride 2": {"window": (1, 1), "padding": ((0, 0), (0, 0)), "strides": 2},
    "2x2 stride 2": {"window": (2, 2), "padding": ((0, 0), (0, 0)), "strides": 2},
    "3x3 stride 3, padded": {"window": (3, 3), "padding": ((1, 0), (2, 1)), "strides": 3},
    "depthwise": {"window": (3, 3), "padding": SQUARE, "groups": 4, "out": 4},
    "depthwise, even, stride 2, doubled": {
        "window": (2, 4),
        "padding": ((0, 1), (2, 1)),
        "strides": 2,
        "groups": 4,
        "out": 8,
    },
    "depthwise, dilation 2": {"window": (3, 3), "padding": ((2, 2), (2, 2)), "dilation": 2, "groups": 4, "out": 4},
    "depthwise, 6x6 stride 4": {"window": (6, 6), "padding": SQUARE, "strides": 4, "groups": 4, "out": 4},
    "depthwise, stride 3, with gaps": {
        "window": (2, 2),
        "padding": ((-1, 2), (4, 0)),
        "strides": 3,
        "groups": 4,
        "out": 4,
    },
    "two groups": {"window": (3, 3), "padding": SQUARE, "groups": 2, "out": 6},
    "one dimension": {"window": (5,), "padding": ((2, 2),), "strides": 2},
    "one dimension, pointwise": {"window": (1,), "padding": ((0, 0),)},
    "three dimensions": {"window": (3, 3, 3), "padding": ((1, 1), (0, 2), (1, 1))},
    "three dimensions, blocks": {"window": (2, 2, 2), "padding": ((0, 0),) * 3, "strides": 2},
}


@pytest.mark.parametrize("case", GEOMETRIES)
def test_conv_equals_lax(case):
    options = dict(GEOMETRIES[case])
    window, out, padding = options.pop("window"), options.pop("out", 5), options.pop("padding")
    space = {1: (11,), 2: (9, 10), 3: (5, 6, 4)}[len(window)]
    x, w = draw(0, (2, *space, 4), (*window, 4 // options.get("groups", 1), out))
    assert_same(lambda x, w: conv(x, w, padding=padding, **options), lambda x, w: plain(x, w, padding, **options), x, w)


@pytest.mark.parametrize("piece", [500, 60])
@pytest.mark.parametrize("case", ["3x3, fewer channels out", "3x3 stride 2", "stride 2, dilation 3", "negative border"])
def test_derivative_in_pieces_equals_lax(case, piece, monkeypatch):
    """One image at a time, and a few of its rows at a time."""
    monkeypatch.setattr("jfusion.layers.conv.PIECE", piece)
    test_conv_equals_lax(case)


@pytest.mark.parametrize(
    ("size", "window", "strides"), [(9, 3, 1), (8, 4, 1), (9, 3, 2), (8, 3, 2), (10, 5, 4), (9, 2, 2)]
)
def test_same_padding_is_tensorflows(size, window, strides):
    x, w = draw(1, (1, size, size, 2), (window, window, 2, 3))
    ours = conv(x, w, strides=strides)
    assert ours.shape[1:3] == (-(-size // strides),) * 2
    np.testing.assert_allclose(ours, plain(x, w, "SAME", strides), atol=1e-5)


@pytest.mark.parametrize(("name", "mode"), [("reflect", "reflect"), ("edge", "edge"), ("circular", "wrap")])
def test_borders(name, mode):
    x, w = draw(2, (1, 6, 7, 2), (4, 3, 2, 3))

    def padded(x, w):
        return plain(jnp.pad(x, ((0, 0), (1, 2), (1, 1), (0, 0)), mode), w, "VALID")

    assert_same(lambda x, w: conv(x, w, padding=name), padded, x, w)


def test_int_padding_is_that_many_zeros():
    x, w = draw(2, (1, 6, 7, 2), (3, 3, 2, 3))
    np.testing.assert_allclose(conv(x, w, padding=2, strides=2), plain(x, w, ((2, 2), (2, 2)), 2), atol=1e-5)


@pytest.mark.parametrize(
    ("window", "strides", "padding", "pads"),
    [
        ((4, 4), 2, "same", "SAME"),
        ((3, 3), 2, "same", "SAME"),
        ((2, 2), 2, "same", "SAME"),
        ((2, 3), 4, "same", "SAME"),
        ((3, 3), 3, ((1, 0), (0, 2)), ((1, 0), (0, 2))),
        ((8, 8), 4, 2, ((2, 2), (2, 2))),
        ((3, 3), 2, ((1, 0), (1, 0)), ((1, 0), (1, 0))),
        ((5,), 3, "valid", "VALID"),
        ((3, 3, 3), 2, 1, ((1, 1), (1, 1), (1, 1))),
    ],
)
def test_conv_transpose_is_the_adjoint_of_conv(window, strides, padding, pads):
    """The adjoint of `lax`' strided convolution is what TensorFlow and PyTorch call a transposed one."""
    x, w = draw(3, (2, *(5, 4, 3)[: len(window)], 3), (*window, 3, 2))

    def ours(x, w):
        return conv_transpose(x, w, strides=strides, padding=padding)

    def adjoint(x, w):
        def down(image):
            return plain(image, jnp.swapaxes(w, -1, -2), pads, strides)

        return jax.linear_transpose(down, jax.eval_shape(ours, x, w))(x)[0]

    assert_same(ours, adjoint, x, w)


@pytest.mark.parametrize(
    ("window", "strides", "padding", "extra"), [(3, 2, 1, 1), (4, 2, 1, 0), (8, 4, 2, 0), (13, 8, 6, 3), (2, 2, 0, 0)]
)
def test_conv_transpose_has_pytorchs_geometry(window, strides, padding, extra):
    """Size (n - 1) stride - 2 padding + kernel + output_padding; sample i lands at stride * i - padding."""
    n = 4
    (w,) = draw(4, (window, window, 1, 1))
    x = jnp.zeros((n, n, 1)).at[2, 1].set(1.0)
    y = conv_transpose(x, w, strides=strides, padding=((padding, padding - extra),) * 2)
    size = (n - 1) * strides - 2 * padding + window + extra
    expected = np.zeros((n * strides + 2 * window + extra,) * 2)
    expected[2 * strides : 2 * strides + window, strides : strides + window] = w[..., 0, 0]
    assert y.shape == (size, size, 1)
    np.testing.assert_allclose(y[..., 0], expected[padding:, padding:][:size, :size], atol=1e-6)


def test_other_backends_give_the_same(monkeypatch):
    """They take the other branch, plain `lax`."""
    x, w, narrow = draw(11, (1, 6, 6, 4), (2, 2, 4, 4), (2, 2, 1, 4))

    def products():
        return (
            conv(x, w),
            conv(x, w, strides=2),
            conv(x, narrow, groups=4),
            conv_transpose(x, w),
            conv_transpose(x, w, strides=3),
        )

    here = products()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    for a, b in zip(products(), here, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_leading_axes_are_batch():
    x, w = draw(5, (2, 3, 6, 5, 2), (3, 3, 2, 4))
    y = conv(x, w)
    assert y.shape == (2, 3, 6, 5, 4)
    np.testing.assert_allclose(y[1, 2], conv(x[1, 2], w), atol=1e-5)
    up = conv_transpose(x, w)
    np.testing.assert_allclose(up[1, 2], conv_transpose(x[1, 2], w), atol=1e-5)


@pytest.mark.parametrize("of", ["images", "kernels", "both"])
def test_vmap_equals_loop(of):
    xs, ws = draw(6, (3, 2, 6, 6, 3), (3, 3, 3, 3, 4))
    if of == "images":
        ws = jnp.broadcast_to(ws[:1], ws.shape)
    if of == "kernels":
        xs = jnp.broadcast_to(xs[:1], xs.shape)
    axes = (None if of == "kernels" else 0, None if of == "images" else 0)
    gradient = jax.value_and_grad(lambda x, w: jnp.sum(jnp.sin(conv(x, w, strides=2))), (0, 1))
    operands = (xs[0] if of == "kernels" else xs, ws[0] if of == "images" else ws)
    mapped = jax.jit(jax.vmap(gradient, axes))(*operands)
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(gradient(x, w) for x, w in zip(xs, ws, strict=True)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), mapped, looped)


@pytest.mark.parametrize("remat", [False, True])
def test_gradient_in_scan_equals_unrolled(remat):
    x, ws = draw(7, (1, 6, 6, 3), (3, 4, 4, 3, 3))

    def stage(x, w):
        return jnp.tanh(conv_transpose(conv(x, w, strides=2), w) + conv(x, w)), None

    def unrolled(x, ws):
        for w in ws:
            x, _ = stage(x, w)
        return jnp.sum(x**2)

    def scanned(x, ws):
        return jnp.sum(lax.scan(jax.checkpoint(stage) if remat else stage, x, ws)[0] ** 2)

    for a, b in zip(jax.grad(scanned, (0, 1))(x, ws), jax.grad(unrolled, (0, 1))(x, ws), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * jnp.abs(b).max())


@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"padding": 1, "strides": 2},
        {"padding": 2, "dilation": 2},
        {"padding": 1, "strides": 2, "groups": 2},
    ],
)
def test_gradient_of_a_gradient(options):
    """Gradient penalties differentiate twice."""
    x, w = draw(8, (1, 6, 6, 2), (3, 3, 2 // options.get("groups", 1), 2))
    pads = ((options["padding"],) * 2,) * 2
    rest = {name: value for name, value in options.items() if name != "padding"}

    def penalty(f):
        return lambda x, w: jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(f(x, w))))(x) ** 2)

    ours = jax.grad(penalty(lambda x, w: conv(x, w, **options)), (0, 1))(x, w)
    theirs = jax.grad(penalty(lambda x, w: plain(x, w, pads, **rest)), (0, 1))(x, w)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [Conv, ConvTranspose])
def test_dtype_is_the_inputs_or_the_one_asked_for(layer):
    (x,) = draw(9, (1, 4, 4, 2))
    keeps, asked = layer(2, 3, 3, rngs=nnx.Rngs(0)), layer(2, 3, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert keeps(x).dtype == jnp.float32
    assert keeps(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert asked(x).dtype == jnp.bfloat16
    assert asked.kernel[...].dtype == jnp.float32
    np.testing.assert_allclose(asked(x).astype(jnp.float32), keeps(x), atol=0.05)
    gradient = nnx.grad(lambda layer: jnp.sum(layer(x).astype(jnp.float32) ** 2))(asked)
    assert gradient.kernel[...].dtype == jnp.float32
    assert float(jnp.abs(gradient.kernel[...]).max()) > 0


def test_layers_add_their_bias():
    (x,) = draw(10, (2, 5, 5, 4))
    layer = Conv(4, 6, (3, 2), strides=2, groups=2, bias_init=jax.nn.initializers.constant(0.5), rngs=nnx.Rngs(0))
    assert layer.kernel.shape == (3, 2, 2, 6)
    np.testing.assert_allclose(layer(x), conv(x, layer.kernel[...], strides=2, groups=2) + 0.5, atol=1e-6)
    up = ConvTranspose(4, 3, 4, use_bias=False, rngs=nnx.Rngs(0))
    assert up.bias is None
    np.testing.assert_allclose(up(x), conv_transpose(x, up.kernel[...]), atol=1e-6)
    assert up(x).shape == (2, 10, 10, 3)


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((4, 4, 3), (3, 3, 2, 5), {}),
        ((4, 3), (3, 3, 3, 5), {}),
        ((4, 4, 3), (3, 3), {}),
        ((4, 4, 4), (3, 3, 2, 5), {"groups": 2}),
        ((4, 4, 3), (3, 3, 3, 5), {"padding": "zeros"}),
        ((4, 4, 3), (3, 3, 3, 5), {"padding": ((1, 1),)}),
        ((4, 4, 3), (7, 7, 3, 5), {"padding": "valid"}),
    ],
)
def test_what_does_not_fit_is_refused(x, w, options):
    with pytest.raises(InputError):
        conv(jnp.zeros(x), jnp.zeros(w), **options)


def test_integers_are_refused():
    with pytest.raises(InputError, match="floating"):
        conv(jnp.zeros((4, 4, 1), jnp.uint8), jnp.zeros((3, 3, 1, 1)))


@pytest.mark.parametrize(
    ("init", "deviation", "bound"),
    [
        (torch_kernel, 1 / np.sqrt(3 * 72), 1 / np.sqrt(72)),
        (tf_variance_scaling, np.sqrt(2 / 72), 2 * np.sqrt(2 / 72) / 0.8796),
        (tf_he_normal, 0.8796 * np.sqrt(2 / 72), 2 * np.sqrt(2 / 72)),
        (tf_truncated_normal, 0.088, 0.2),
        (torch_bias(72), 1 / np.sqrt(3 * 72), 1 / np.sqrt(72)),
    ],
)
def test_initialisers_have_their_spread(init, deviation, bound):
    w = init(jax.random.key(0), (3, 3, 8, 256), jnp.float32)
    assert float(w.std()) == pytest.approx(deviation, rel=0.02)
    assert bound * 0.98 < float(jnp.abs(w).max()) <= bound * 1.001
