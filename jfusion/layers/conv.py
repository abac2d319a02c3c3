"""The one convolution of the project: 1-D, 2-D and 3-D, strided, dilated, grouped and transposed.

Arrays are channel-last, `(..., *space, channel)`, kernels `(*window, in, out)`. A convolution is, as in every deep
learning library, a correlation: `y[q] = sum_j x[stride q + dilation j - padding] w[j]`.

On TPU and GPU it is plain `lax`. On CPU, XLA has a fast convolution for exactly one layout (channel-last, kernel
`(*window, in, out)`) and finds it for the usual derivatives only outside `scan`, loops and conditionals; inside, they
are 10 to 30 times slower. `_canonical` therefore states its own derivatives as convolutions of that layout, and gives
them shapes that it is fast for. Grouped and 3-D convolutions have no fast form at all and become shifted products, one
convolution a group or one a plane of the window; windows that tile the image are matrix products. All of these
are equal to `lax` but for rounding.
"""

import math
from collections.abc import Sequence
from functools import partial, reduce
from itertools import product
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.custom_batching import sequential_vmap
from jax.nn.initializers import Initializer, zeros
from jax.typing import DTypeLike

from jfusion.errors import InputError
from jfusion.layers.init import torch_kernel

Pairs = tuple[tuple[int, int], ...]
Padding = Literal["same", "valid", "reflect", "edge", "circular"] | int | Sequence[tuple[int, int]]
TransposedPadding = Literal["same", "valid"] | int | Sequence[tuple[int, int]]

PIECE = 2**17
"""Numbers of one operand that a core's cache holds beside others; half of it and twice as much are as good."""

_BORDER = {"reflect": "reflect", "edge": "edge", "circular": "wrap"}


# ----------------------------------------------------------------------------------------------------------------------
# Functions


def conv(
    x: jax.Array, w: jax.Array, *, strides: int = 1, padding: Padding = "same", dilation: int = 1, groups: int = 1
) -> jax.Array:
    """Convolves the last axes of `x`, in its dtype.

    Args:
        x: `(..., *space, in)`, floating point.
        w: `(*window, in // groups, out)`; the rank of the window is the rank of the convolution.
        padding: `"valid"`: none. `"same"`: zeros so that the output has `ceil(size / strides)` samples, the odd one at
            the end (TensorFlow). `"reflect"`, `"edge"`, `"circular"`: as many samples as `"same"`, of that kind. `p`:
            p zeros on every side (PyTorch). `((top, bottom), (left, right))`: zeros on each side.
        groups: the number of groups; `groups == in` is a depthwise convolution.

    Returns:
        `(..., *size, out)` with `size = (space + padding - dilation (window - 1) - 1) // strides + 1`.

    Raises:
        InputError: shapes, dtype or padding do not fit.
    """
    rank = _check(x, w, groups)
    window = tuple(dilation * (k - 1) + 1 for k in w.shape[:rank])
    x, lead = x.reshape(-1, *x.shape[-rank - 1 :]), x.shape[: -rank - 1]
    x, pads = _pad(x, window, strides, padding)
    sizes = [n + lo + hi - k + 1 for n, (lo, hi), k in zip(x.shape[1:], pads, window, strict=False)]
    if min(sizes) < 1:
        raise InputError(
            f"the window {window} (dilation included) is larger than the padded image: space {x.shape[1:-1]}, "
            f"padding {pads}; pad more or give a larger image"
        )
    y = _conv(x, w.astype(x.dtype), pads, strides, dilation, groups)
    return y.reshape(*lead, *y.shape[1:])


def conv_transpose(
    x: jax.Array,
    w: jax.Array,
    *,
    strides: int = 2,
    padding: TransposedPadding = "same",
) -> jax.Array:
    """The adjoint of a strided `conv`: every sample of `x` lays down a copy of the kernel, `strides` apart.

    Sample i of `x` meets the kernel's first tap at index `strides i - padding` of the output, as in PyTorch and
    TensorFlow (whose kernels are `(in, out, *window)` and `(*window, out, in)`; none is flipped).

    Args:
        x: `(..., *space, in)`, floating point.
        w: `(*window, in, out)`.
        padding: what is cut off the full result, `(space - 1) strides + window` samples long. `"valid"`: nothing.
            `"same"`: as much as leaves `space * strides` samples (TensorFlow). `p`: p on every side. Pairs: on each
            side; PyTorch's `padding=p, output_padding=o` is `((p, p - o), (p, p - o))`.

    Returns:
        `(..., *size, out)` with `size = (space - 1) strides + window - cut`.

    Raises:
        InputError: shapes, dtype or padding do not fit.
    """
    rank = _check(x, w, 1)
    window = w.shape[:rank]
    if padding == "same":
        cut = tuple((lo := max(k - strides, 0) // 2, k - strides - lo) for k in window)
    else:
        cut = _explicit(padding, rank)
    sizes = [(n - 1) * strides + k - lo - hi for n, k, (lo, hi) in zip(x.shape[-rank - 1 :], window, cut, strict=False)]
    if min(sizes) < 1:
        raise InputError(f"the cut {cut} leaves nothing of an output for space {x.shape[-rank - 1 : -1]}; cut less")
    x, lead = x.reshape(-1, *x.shape[-rank - 1 :]), x.shape[: -rank - 1]
    y = _conv_transpose(x, w.astype(x.dtype), cut, strides)
    return y.reshape(*lead, *y.shape[1:])


# ----------------------------------------------------------------------------------------------------------------------
# Layers


class Conv(nnx.Module):
    """`conv` with a learned kernel and bias; see there for the geometry.

    Args:
        kernel_size: an int is a square 2-D window; a tuple of 1, 2 or 3 sets the rank.
        dtype: the dtype of computation and output; None keeps the input's. Parameters are float32.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        strides: int = 1,
        padding: Padding = "same",
        dilation: int = 1,
        groups: int = 1,
        use_bias: bool = True,
        kernel_init: Initializer = torch_kernel,
        bias_init: Initializer = zeros,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        if in_features % groups or out_features % groups:
            raise InputError(
                f"groups must divide the channels: {in_features} in and {out_features} out came with groups={groups}"
            )
        shape = (*_window(kernel_size), in_features // groups, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(bias_init(rngs.params(), (out_features,), jnp.float32)) if use_bias else None
        self.strides, self.padding, self.dilation, self.groups, self.dtype = strides, padding, dilation, groups, dtype

    def __call__(self, x: jax.Array, padding: Padding | None = None) -> jax.Array:
        """`(..., *space, in_features)` to `(..., *size, out_features)`, with another padding than its own if given."""
        x = x if self.dtype is None else x.astype(self.dtype)
        y = conv(
            x,
            self.kernel[...],
            strides=self.strides,
            padding=self.padding if padding is None else padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


class ConvTranspose(nnx.Module):
    """`conv_transpose` with a learned kernel and bias; see there for the geometry and `Conv` for the arguments."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        *,
        strides: int = 2,
        padding: TransposedPadding = "same",
        use_bias: bool = True,
        kernel_init: Initializer = torch_kernel,
        bias_init: Initializer = zeros,
        dtype: DTypeLike | None = None,
        rngs: nnx.Rngs,
    ) -> None:
        shape = (*_window(kernel_size), in_features, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(bias_init(rngs.params(), (out_features,), jnp.float32)) if use_bias else None
        self.strides, self.padding, self.dtype = strides, padding, dtype

    def __call__(self, x: jax.Array, padding: TransposedPadding | None = None) -> jax.Array:
        """`(..., *space, in_features)` to `(..., *size, out_features)`, with another padding than its own if given."""
        x = x if self.dtype is None else x.astype(self.dtype)
        padding = self.padding if padding is None else padding
        y = conv_transpose(x, self.kernel[...], strides=self.strides, padding=padding)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


# ----------------------------------------------------------------------------------------------------------------------
# Geometry


def _window(kernel_size: int | Sequence[int]) -> tuple[int, ...]:
    return (kernel_size, kernel_size) if isinstance(kernel_size, int) else tuple(kernel_size)


def _halves(total: int) -> tuple[int, int]:
    return total // 2, total - total // 2


def _explicit(padding: object, rank: int) -> Pairs:
    if padding == "valid":
        return ((0, 0),) * rank
    if isinstance(padding, int):
        return ((padding, padding),) * rank
    if isinstance(padding, Sequence) and len(padding) == rank and all(len(pair) == 2 for pair in padding):
        return tuple((int(lo), int(hi)) for lo, hi in padding)
    raise InputError(f"padding must be a name, an int or {rank} pairs (before, after), one an axis; {padding!r} came")


def _pad(x: jax.Array, window: Sequence[int], strides: int, padding: Padding) -> tuple[jax.Array, Pairs]:
    """Lays down borders that are not zeros; returns the image and the zeros that the convolution still has to add."""
    if not isinstance(padding, str) or (padding != "same" and padding not in _BORDER):
        return x, _explicit(padding, len(window))
    missing = (max((-(-n // strides) - 1) * strides + k - n, 0) for n, k in zip(x.shape[1:], window, strict=False))
    pads = tuple(_halves(total) for total in missing)
    if padding == "same":
        return x, pads
    return jnp.pad(x, ((0, 0), *pads, (0, 0)), _BORDER[padding]), ((0, 0),) * len(window)


def _check(x: jax.Array, w: jax.Array, groups: int) -> int:
    """The rank of the convolution, after all that can be wrong with its operands."""
    rank = w.ndim - 2
    if rank not in (1, 2, 3):
        raise InputError(f"a kernel must be (*window, in, out) with 1 to 3 window axes; shape {w.shape} came")
    if x.ndim < rank + 1:
        raise InputError(
            f"a {rank}-D convolution needs (..., *space, channel) with {rank} axes of space; {x.shape} came"
        )
    if x.shape[-1] != w.shape[-2] * groups or w.shape[-1] % groups:
        raise InputError(
            f"the kernel {w.shape} with groups={groups} reads {w.shape[-2] * groups} channels and the image has "
            f"{x.shape[-1]}; kernels are (*window, in // groups, out) and images channel-last"
        )
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"a convolution needs floating-point numbers; {x.dtype} came: scale the image first")
    return rank


# ----------------------------------------------------------------------------------------------------------------------
# Computation: x is (batch, *space, in), pads are zeros


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _conv(x: jax.Array, w: jax.Array, pads: Pairs, strides: int, dilation: int, groups: int) -> jax.Array:
    if not _on_cpu():
        return _lax(x, w, pads, strides, dilation, 1, groups)
    if groups == x.shape[-1] > 1:
        return _depthwise(x, w, pads, strides, dilation)
    if groups > 1:
        parts = zip(jnp.split(x, groups, -1), jnp.split(w, groups, -1), strict=True)
        return jnp.concatenate([_conv(*part, pads, strides, dilation, 1) for part in parts], -1)
    if dilation == 1 and set(w.shape[:-2]) == {strides}:
        return _blocks(x, w, pads)
    if len(pads) == 3:
        return _planes(x, w, pads, strides, dilation)
    return _canonical(x, w, pads, strides, dilation, 1)


def _conv_transpose(x: jax.Array, w: jax.Array, cut: Pairs, strides: int) -> jax.Array:
    if _on_cpu() and set(w.shape[:-2]) == {strides}:
        return _blocks_transpose(x, w, cut)
    pads = tuple((k - 1 - lo, k - 1 - hi) for k, (lo, hi) in zip(w.shape, cut, strict=False))
    flipped = jnp.flip(w, tuple(range(len(cut))))
    return (_canonical if _on_cpu() else _lax)(x, flipped, pads, 1, 1, strides)


def _planes(x: jax.Array, w: jax.Array, pads: Pairs, strides: int, dilation: int) -> jax.Array:
    """A 3-D convolution as a sum of 2-D ones over the window's planes, since only these have a fast form."""
    x = _zeros(x, (pads[0], (0, 0), (0, 0)))
    depth = (x.shape[1] - dilation * (len(w) - 1) - 1) // strides + 1

    def plane(k: int) -> jax.Array:
        part = _samples(x, (dilation * k,), (depth,), strides)
        return _canonical(part.reshape(-1, *x.shape[2:]), w[k], pads[1:], strides, dilation, 1)

    y = reduce(jnp.add, map(plane, range(len(w))))
    return y.reshape(len(x), depth, *y.shape[1:])


def _blocks(x: jax.Array, w: jax.Array, pads: Pairs) -> jax.Array:
    """Windows that tile the image (a 1x1 convolution, a 2x2 one of stride 2), as one matrix product."""
    rank, step = len(pads), w.shape[0]
    size = [(n + lo + hi) // step for n, (lo, hi) in zip(x.shape[1:], pads, strict=False)]
    x = _zeros(x, tuple((lo, m * step - n - lo) for n, m, (lo, _) in zip(x.shape[1:], size, pads, strict=False)))
    x = x.reshape(-1, *(n for m in size for n in (m, step)), x.shape[-1])
    x = x.transpose(0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1)
    return (x.reshape(-1, math.prod(w.shape[:-1])) @ w.reshape(-1, w.shape[-1])).reshape(-1, *size, w.shape[-1])


def _blocks_transpose(x: jax.Array, w: jax.Array, cut: Pairs) -> jax.Array:
    """Kernels laid side by side (a 2x2 transposed convolution of stride 2), as one matrix product."""
    rank, step, size = len(cut), w.shape[0], x.shape[1:-1]
    y = x.reshape(-1, x.shape[-1]) @ jnp.moveaxis(w, -2, 0).reshape(w.shape[-2], -1)
    y = y.reshape(-1, *size, *w.shape[:-2], w.shape[-1])
    y = y.transpose(0, *(a for i in range(1, rank + 1) for a in (i, rank + i)), 2 * rank + 1)
    y = y.reshape(-1, *(n * step for n in size), w.shape[-1])
    return _zeros(y, tuple((-lo, -hi) for lo, hi in cut))


def _samples(x: jax.Array, start: Sequence[int], size: Sequence[int], step: int = 1) -> jax.Array:
    return x[(slice(None), *(slice(i, i + step * (n - 1) + 1, step) for i, n in zip(start, size, strict=True)))]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _depthwise(x: jax.Array, w: jax.Array, pads: Pairs, strides: int, dilation: int) -> jax.Array:
    """Each channel with its own kernels, as a sum of shifted products; for small windows (use an FFT for others)."""
    x, window = jnp.repeat(_zeros(x, pads), w.shape[-1] // x.shape[-1], -1), w.shape[:-2]
    size = [(n - dilation * (k - 1) - 1) // strides + 1 for n, k in zip(x.shape[1:], window, strict=False)]
    taps = product(*map(range, window))
    return reduce(jnp.add, (_samples(x, [dilation * j for j in tap], size, strides) * w[tap][0] for tap in taps))


def _depthwise_forward(
    x: jax.Array, w: jax.Array, pads: Pairs, strides: int, dilation: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _depthwise(x, w, pads, strides, dilation), (x, w)


def _depthwise_backward(
    pads: Pairs, strides: int, dilation: int, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """In x again a sum of shifted products, one for each phase of the stride; XLA's own is a sum of padded images.

    In w one tap after the other, since XLA would store the shifted image of each.
    """
    x, w = saved
    rank, window, space = len(pads), w.shape[:-2], x.shape[1:-1]
    image = jnp.repeat(_zeros(x, pads), w.shape[-1] // x.shape[-1], -1)
    reach = [strides * (n - 1) + 1 for n in g.shape[1:-1]]

    def of_tap(start: jax.Array) -> jax.Array:
        part = lax.dynamic_slice(image, (0, *start, 0), (len(x), *reach, w.shape[-1]))
        return jnp.sum(_samples(part, (0,) * rank, g.shape[1:-1], strides) * g, range(rank + 1))

    dw = lax.map(of_tap, dilation * jnp.asarray(list(product(*map(range, window)))))
    # sample strides t + phase meets tap j in output t + (phase + lo - dilation j) / strides
    size = [-(-n // strides) for n in space]
    first = [(lo - dilation * (k - 1)) // strides for k, (lo, _) in zip(window, pads, strict=True)]
    last = [(lo + strides - 1) // strides for lo, _ in pads]
    padded = _zeros(g, tuple((-a, b + n - m) for a, b, n, m in zip(first, last, size, g.shape[1:], strict=False)))
    phases = []
    for phase in product(range(strides), repeat=rank):
        total = jnp.zeros((len(x), *size, w.shape[-1]), g.dtype)
        for tap in product(*map(range, window)):
            place = [p + lo - dilation * j for p, (lo, _), j in zip(phase, pads, tap, strict=True)]
            if not any(i % strides for i in place):
                start = [i // strides - a for i, a in zip(place, first, strict=True)]
                total = total + _samples(padded, start, size) * w[tap][0]
        phases.append(total)
    dx = jnp.stack(phases, -2).reshape(len(x), *size, *(strides,) * rank, -1)
    dx = dx.transpose(0, *(a for i in range(1, rank + 1) for a in (i, rank + i)), 2 * rank + 1)
    dx = dx.reshape(len(x), *(n * strides for n in size), x.shape[-1], -1).sum(-1)
    return _samples(dx, (0,) * rank, space), dw.reshape(w.shape)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _zeros(x: jax.Array, pads: Pairs) -> jax.Array:
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((lo, hi, 0) for lo, hi in pads), (0, 0, 0)])


def _lax(
    x: jax.Array, w: jax.Array, pads: Pairs, strides: int, dilation: int, spread: int, groups: int = 1
) -> jax.Array:
    """`spread` puts `spread - 1` zeros between the samples of `x`."""
    rank = len(pads)
    space = "DHW"[-rank:]
    return lax.conv_general_dilated(
        x,
        w,
        (strides,) * rank,
        pads,
        (spread,) * rank,
        (dilation,) * rank,
        (f"N{space}C", f"{space}IO", f"N{space}C"),
        groups,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5))
def _canonical(x: jax.Array, w: jax.Array, pads: Pairs, strides: int, dilation: int, spread: int) -> jax.Array:
    """A convolution whose derivatives, of every order, are convolutions of the one fast layout.

    Let x' be `x` spread out and y[q] = sum_j x'[strides q + dilation j - lo] w[j]. The derivative in x is a convolution
    of the same kind with strides and spread exchanged, the one in w with strides and dilation exchanged. Under `vmap`
    it runs once for each image and kernel, since the grouped convolution that `lax` would make of them is slower.
    """
    return sequential_vmap(partial(_favoured, pads=pads, strides=strides, dilation=dilation, spread=spread))(x, w)


def _favoured(x: jax.Array, w: jax.Array, pads: Pairs, strides: int, dilation: int, spread: int) -> jax.Array:
    """`_lax` in a shape that XLA's kernels on CPU are fast for: more channels of zeros, and a row that is cut off.

    An image without any padding takes a multiple of the time of one with a row of it; for channels see `_channels`.
    Results of a few pixels, such as the derivative in w, have rules of their own; other ranks and spread images gain by
    even channels alone. `experiments.benchmarks.convolutions` measures it.
    """
    size = [
        (spread * (n - 1) + 1 + lo + hi - dilation * (k - 1) - 1) // strides + 1
        for n, k, (lo, hi) in zip(x.shape[1:], w.shape, pads, strict=False)
    ]
    flat = len(pads) == 2 and spread == 1
    plain = flat and math.prod(size) >= 64
    new_in, new_out = (_channels if plain else _channels_for_few if flat else _even)(*w.shape[-2:])
    x = lax.pad(x, jnp.zeros((), x.dtype), [*((0, 0, 0),) * (x.ndim - 1), (0, new_in - w.shape[-2], 0)])
    more = (0, new_in - w.shape[-2], 0), (0, new_out - w.shape[-1], 0)
    kernel = lax.pad(w, jnp.zeros((), w.dtype), [*((0, 0, 0),) * (w.ndim - 2), *more])
    if plain and not any(map(any, pads)):
        pads = ((0, 1), *pads[1:])
    return _lax(x, kernel, pads, strides, dilation, spread)[:, : size[0], ..., : w.shape[-1]]


def _channels(n_in: int, n_out: int) -> tuple[int, int]:
    """Numbers of channels, not below these, that XLA's kernels on CPU are fast for.

    With few channels 20 are made sooner than 16 or less; 25 to 31 take longer than 32, and 49 to 63 than 64; more than
    8 that come in fours are faster than others, unless they make thirty-twos.
    """
    if n_in <= 16 and max(n_in, n_out) >= 4:
        n_out = max(n_out, 20)
    n_out = _wide(n_out, 24, 48)
    group = 1 if n_in == 1 else 4 if n_in > 8 and n_out % 32 else 2
    return n_in + -n_in % group, n_out


def _channels_for_few(n_in: int, n_out: int) -> tuple[int, int]:
    """The same for results of a few pixels: 32 and 64 are made sooner than less, the more so where one comes in."""
    return _even(n_in, n_out)[0], _wide(n_out, *((16, 32) if n_in == 1 else (24, 48)))


def _even(*numbers: int) -> tuple[int, ...]:
    return tuple(n + n % 2 if n > 1 else n for n in numbers)


def _wide(n: int, half: int, whole: int) -> int:
    """A multiple of 64 from above ``whole`` on, of 32 from above ``half`` on, else an even number."""
    return n + (-n % 64 if n % 64 > whole else -n % 32 if n % 32 > half else n % 2)


def _forward(
    x: jax.Array, w: jax.Array, pads: Pairs, strides: int, dilation: int, spread: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _canonical(x, w, pads, strides, dilation, spread), (x, w)


def _backward(
    pads: Pairs, strides: int, dilation: int, spread: int, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, w = saved
    axes = tuple(range(len(pads)))
    last = [
        [step * (n - 1) for n in shape]
        for step, shape in ((spread, x.shape[1:-1]), (dilation, w.shape[:-2]), (strides, g.shape[1:-1]))
    ]
    x_pads = tuple((lo, k + y - n - lo) for n, k, y, (lo, _) in zip(*last, pads, strict=True))
    g_pads = tuple((k - lo, n + lo - y) for n, k, y, (lo, _) in zip(*last, pads, strict=True))
    dx = _canonical(g, jnp.flip(jnp.swapaxes(w, -1, -2), axes), g_pads, spread, dilation, strides)
    # either can be the image: one without gaps, or else the one with fewer channels, which are the rows of the result
    if strides > spread or (strides == spread and x.shape[-1] <= g.shape[-1]):
        return dx, jnp.moveaxis(_correlate(x, g, x_pads, dilation, strides, spread), 0, -2)
    return dx, jnp.flip(jnp.moveaxis(_correlate(g, x, g_pads, dilation, spread, strides), 0, -1), axes)


def _correlate(x: jax.Array, g: jax.Array, pads: Pairs, strides: int, dilation: int, spread: int) -> jax.Array:
    """Each channel of `x` with each of `g` for kernel, summed over the batch: `(x channel, *window, g channel)`.

    In a convolution of the one fast layout, the channels of `x` are the batch and the batch the channels. It reads the
    image anew for each tap, so that pieces that stay in a cache take less than half of the time of the whole.
    """
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((lo, hi, spread - 1) for lo, hi in pads), (0, 0, 0)])
    batch, height = g.shape[:2]
    reach = x.shape[1] - dilation * (height - 1)
    size = max(x.size, g.size) // batch
    images = max((n for n in range(1, batch + 1) if batch % n == 0 and n * size <= PIECE), default=1)
    rows = -(-height // -(-size // PIECE))
    bands = -(-height // rows)

    def cut(a: jax.Array, image: jax.Array | int, row: jax.Array | int, length: int) -> jax.Array:
        return lax.dynamic_slice_in_dim(lax.dynamic_slice_in_dim(a, image, images), row, length, 1)

    def piece(k: jax.Array | int) -> jax.Array:
        image, row = k // bands * images, k % bands * rows
        part = cut(x, image, dilation * row, dilation * (rows - 1) + reach)
        turned = jnp.swapaxes(part, 0, -1), jnp.moveaxis(cut(g, image, row, rows), 0, -2)
        return _canonical(*turned, ((0, 0),) * len(pads), strides, dilation, 1)

    count = batch // images * bands
    if count == 1:
        return piece(0)
    missing = bands * rows - height
    x, g = (jnp.pad(a, ((0, 0), (0, n), *((0, 0),) * len(pads))) for a, n in ((x, dilation * missing), (g, missing)))
    total = piece(0).astype(jnp.promote_types(x.dtype, jnp.float32))
    return lax.scan(lambda total, k: (total + piece(k), None), total, jnp.arange(1, count))[0].astype(x.dtype)


_canonical.defvjp(_forward, _backward)
