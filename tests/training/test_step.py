"""One step: as on one device, and everything that a recipe may ask of it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toys
from flax import nnx

from jfusion.catalogue import Bands
from jfusion.errors import InputError
from jfusion.solvers.prox import project_simplex
from jfusion.training.players import CRITICS, NETWORK, make_optimiser, make_players, paced
from jfusion.training.step import Batch, Devices, begin, enter, make_step, make_steps, may_lock

DATA = toys.simulation(4, 8)
BANDS = Bands.of(DATA.observation, DATA.model)
BATCH = Batch(DATA.observation, DATA.target)


class Gain(nnx.Module):
    """The smallest network: one gain a band, and a constant."""

    def __init__(self, bands: Bands, rngs: nnx.Rngs) -> None:
        self.gain = nnx.Param(jnp.full(bands.lr, 0.5))
        self.offset = nnx.Param(jnp.zeros(()))

    def __call__(self, observation, model):
        return observation["guide"] * self.gain[...] + self.offset[...]


def gain(**recipe):
    row = toys.row(**recipe)
    return dataclasses.replace(row.method, network=Gain)


def run(method, steps: int = 1, devices: Devices | None = None, batch: Batch = BATCH):
    """The network's state before and after some steps, and its losses."""
    module = method.network(BANDS, rngs=nnx.Rngs(0))
    players, modules = make_players(method, module, BANDS, steps, 0, method.tiny)
    devices = devices or Devices.of(len(batch.target), method.recipe.parts)
    state = begin(players, modules)
    before = jax.tree.map(np.asarray, state.players[NETWORK].parameters)
    state, model = devices.replicate((state, DATA.model))
    step, losses = make_step(players, devices, method.recipe.parts, method.recipe.dtype), []
    for _ in range(steps):
        state, values = step(state, devices.share(batch), model)
        losses.append(float(values[NETWORK]))
    return before, state.players[NETWORK], losses


def gradient(method, module):
    graph, parameters, rest = nnx.split(module, nnx.Param, ...)
    return jax.grad(
        lambda p: method.loss(nnx.merge(graph, p, rest, copy=True), DATA.observation, DATA.model, DATA.target)
    )(parameters)


def test_a_step_on_two_devices_is_gradient_descent_on_the_whole_batch() -> None:
    assert len(Devices.of(4).devices) == 2
    method = gain(optimiser=lambda n: optax.sgd(1.0))
    before, after, _ = run(method)
    expected = jax.tree.map(lambda p, g: p - g, before, gradient(method, Gain(BANDS, nnx.Rngs(0))))
    assert toys.furthest(expected, after.parameters) < 1e-6


def test_clipping_sees_the_gradient_of_the_whole_batch() -> None:
    method = gain(optimiser=lambda n: optax.chain(optax.clip_by_global_norm(1e-3), optax.sgd(1.0)))
    before, after, _ = run(method)
    moved = jax.tree.map(lambda a, b: a - b, after.parameters, before)
    assert float(optax.global_norm(moved)) == pytest.approx(1e-3, rel=1e-3)


def test_a_batch_in_parts_is_the_batch() -> None:
    whole, parts = (run(gain(parts=n, optimiser=lambda n: optax.sgd(0.5)), 2) for n in (1, 2))
    assert toys.furthest(whole[1].parameters, parts[1].parameters) < 1e-6
    np.testing.assert_allclose(whole[2], parts[2], rtol=1e-5)


def test_groups_have_their_own_rates() -> None:
    method = gain(optimiser=lambda n: optax.sgd(0.0), groups={"gain": lambda n: optax.sgd(1.0)})
    before, after, _ = run(method)
    assert float(after.parameters["offset"][...]) == before["offset"][...]
    assert toys.furthest(before["gain"], after.parameters["gain"]) > 1e-3
    with pytest.raises(InputError, match="under srf"):
        make_optimiser(gain(groups={"srf": optax.sgd}).recipe, 1, after.parameters)


def test_schedules_run_over_all_steps() -> None:
    method = gain(optimiser=lambda n: optax.sgd(optax.piecewise_constant_schedule(0.5, {n - 1: 0.0})))
    _, three, _ = run(method, 3)
    _, two, _ = run(gain(optimiser=lambda n: optax.sgd(0.5)), 2)
    assert toys.furthest(three.parameters, two.parameters) < 1e-6


def test_projection_puts_parameters_back_after_each_step() -> None:
    def project(net) -> None:
        net.gain[...] = project_simplex(net.gain[...])

    method = dataclasses.replace(gain(optimiser=lambda n: optax.sgd(2.0)), project=project)
    _, after, _ = run(method, 3)
    assert float(after.parameters["gain"][...].sum()) == pytest.approx(1)
    assert float(after.parameters["gain"][...].min()) >= 0


def test_the_average_follows_the_parameters() -> None:
    before, after, _ = run(gain(average=0.75, optimiser=lambda n: optax.sgd(1.0)))
    expected = jax.tree.map(lambda b, a: 0.75 * b + 0.25 * a, before, after.parameters)
    assert toys.furthest(expected, after.average) < 1e-6


def test_bfloat16_computes_coarsely_and_keeps_float32() -> None:
    seen = []

    def loss(net, observation, model, target):
        product = net(observation, model)
        seen.append(product.dtype)
        return jnp.mean((product - target) ** 2)

    fine, coarse = (run(dataclasses.replace(gain(dtype=d), loss=loss)) for d in ("float32", "bfloat16"))
    assert set(seen) == {jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)}
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(coarse[1].parameters))
    assert coarse[2] != fine[2]
    np.testing.assert_allclose(coarse[2], fine[2], rtol=2e-2)


def test_statistics_are_those_of_the_whole_batch_and_dropout_differs_by_device() -> None:
    """Two devices and one agree on a network with batch statistics; masks are drawn anew by step and device."""
    method = toys.row(optimiser=lambda n: optax.sgd(0.5)).method
    one, two = (run(method, 2, Devices(tuple(jax.devices()[:n]))) for n in (1, 2))
    assert toys.furthest(one[1].parameters, two[1].parameters) < 1e-6
    assert toys.furthest(one[1].rest["norm"], two[1].rest["norm"]) < 1e-6
    masks = []

    def loss(net, observation, model, target):
        drawn = net.dropout(jnp.ones((1, 64)))
        jax.debug.callback(lambda x: masks.append(np.asarray(x)), drawn)
        return jnp.mean((net(observation, model) - target) ** 2) + 0 * drawn.sum()

    dropping = dataclasses.replace(method, loss=loss, network=lambda b, rngs: toys.Net(b, dropout=0.5, rngs=rngs))
    run(dropping, 2)
    jax.effects_barrier()
    assert len({mask.tobytes() for mask in masks}) == len(masks) == 4


def test_a_stochastic_loss_draws_anew_at_each_step_and_alike_on_all_devices() -> None:
    def drawn(module, observation, model, target, key):
        return module.offset[...] + jax.random.uniform(key)

    method = dataclasses.replace(gain(optimiser=lambda n: optax.sgd(0.0)), stochastic=drawn)
    (_, _, shared), (_, _, alone) = run(method, 3), run(method, 3, Devices((jax.devices()[0],)))
    assert len(set(shared)) == 3
    np.testing.assert_allclose(shared, alone, rtol=1e-6)


def test_nothing_is_traced_or_compiled_after_the_first_step() -> None:
    events: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: events.append(name))
    method = toys.gan(turns=1).method
    module = method.network(BANDS, rngs=nnx.Rngs(0))
    players, modules = make_players(method, module, BANDS, 5, 0, method.tiny)
    devices = Devices.of(4)
    state, model = devices.replicate((begin(players, modules), DATA.model))
    step, counts = make_step(players, devices), []
    for _ in range(4):
        events.clear()
        state, _ = step(state, devices.share(BATCH), model)
        jax.block_until_ready(state)
        counts.append(sum("trace" in e or "compile" in e for e in events))
    assert counts[0] > 0
    assert counts[1:] == [0, 0, 0]


def test_steps_of_one_call_are_those_of_many() -> None:
    """Critics and random keys included; bit for bit, however they are shared out; and one program serves all."""
    method = toys.gan(turns=1).method
    module = method.network(BANDS, rngs=nnx.Rngs(0))
    players, modules = make_players(method, module, BANDS, 5, 0, method.tiny)
    devices = Devices.of(4)
    shares = [devices.share(jax.tree.map(lambda x, k=k: x * (1 + k / 8), BATCH)) for k in range(4)]
    state, model = devices.replicate((begin(players, modules), DATA.model))
    step, steps = make_step(players, devices), make_steps(players, devices)
    for share in shares:
        state, losses = step(state, share, model)

    def in_calls(*counts: int):
        again, model = devices.replicate((begin(players, modules), DATA.model))
        left = list(shares)
        for count in counts:
            taken, left = left[:count], left[count:]
            again, last = steps(again, taken + taken[-1:] * (devices.steps - count), count, model)
        return jax.block_until_ready((again.players, again.step, last))

    first = in_calls(1, 3)
    events: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, _, **__: events.append(name))
    assert toys.furthest(in_calls(2, 1, 1), first) == 0
    assert not any("compile" in e for e in events)
    assert first[1] == state.step
    assert toys.furthest(first[2], losses) < 1e-6


def test_the_network_stands_still_while_the_critics_play() -> None:
    """The critics' statistics are their own affair: the network's turn leaves them alone, and the reverse."""
    method = toys.gan(turns=2).method
    frozen = dataclasses.replace(method.adversary, optimiser=lambda n: optax.sgd(0.0))
    method = dataclasses.replace(method, adversary=frozen)
    module = method.network(BANDS, rngs=nnx.Rngs(0))
    players, modules = make_players(method, module, BANDS, 1, 0, method.tiny)
    devices = Devices((jax.devices()[0],))
    state, model = devices.replicate((begin(players, modules), DATA.model))
    after, _ = make_step(players, devices)(state, devices.share(BATCH), model)
    critics = method.adversary.critics(BANDS, width=3, rngs=nnx.Rngs(1))
    for _ in range(2):  # turns, each of two calls: real and fake
        critics.spectral(DATA.target)
        critics.spectral(DATA.target)
    np.testing.assert_allclose(
        after.players[CRITICS].rest["spectral"]["head"]["u"][...], critics.spectral.head.u[...], atol=1e-5
    )
    # one update of the running mean with momentum 0.99, although the network was called in three turns
    _, alone, _ = run(toys.row().method, 1, devices)
    assert toys.furthest(alone.rest["norm"]["mean"], after.players[NETWORK].rest["norm"]["mean"]) < 1e-6


@pytest.mark.parametrize(("batch", "parts", "devices"), [(4, 1, 2), (4, 4, 1), (1, 1, 1)])
def test_devices_divide_the_batch(batch: int, parts: int, devices: int) -> None:
    assert len(Devices.of(batch, parts).devices) == devices
    if parts > 1:
        with pytest.raises(InputError, match="multiple of"):
            Devices.of(batch + 1, parts)


def test_devices_that_a_batch_leaves_idle_are_told() -> None:
    with pytest.warns(RuntimeWarning, match="1 of 2 devices"):
        assert len(Devices.of(3).devices) == 1


def test_only_lapack_on_several_cpu_devices_may_lock() -> None:
    def lowest(modules, batch, model, key):
        gain = modules["x"].gain[...]
        return jnp.linalg.eigvalsh(jnp.diag(gain)[None] + batch.target.mean()).min()

    def asked(loss, devices: Devices) -> bool:
        module = Gain(BANDS, nnx.Rngs(0))
        players = {"x": enter(module, loss, optax.sgd(0.0))}
        step, state = make_step(players, devices), begin(players, {"x": module})
        return may_lock(step, devices, state, devices.share(BATCH), DATA.model)

    two = Devices.of(4)
    assert len(two.devices) == 2
    assert two.one().devices == two.devices[:1]
    assert asked(lowest, two)
    assert not asked(lowest, two.one())
    assert not asked(lambda modules, batch, model, key: modules["x"].gain[...].sum(), two)


def test_failure_is_remembered_by_its_first_step() -> None:
    module = Gain(BANDS, nnx.Rngs(0))
    player = enter(module, lambda m, b, model, key: jnp.sqrt(m["x"].offset[...] + b.target.mean()), optax.sgd(0.0))
    devices = Devices((jax.devices()[0],))
    state, model = devices.replicate((begin({"x": player}, {"x": module}), DATA.model))
    step = make_step({"x": player}, devices)
    bad = BATCH._replace(target=BATCH.target.at[0].set(-9.0))
    for batch, expected in ((BATCH, 0), (bad, 2), (BATCH, 2)):
        state, _ = step(state, devices.share(batch), model)
        assert int(state.failed) == expected


def test_a_paced_optimiser_begins_and_ends_at_rest() -> None:
    def falling(steps: int) -> optax.GradientTransformation:
        return optax.sgd(optax.piecewise_constant_schedule(0.1, {steps // 5: 0.5}))

    optimiser = paced(falling, 50, 3.0)
    state, sizes = optimiser.init(jnp.ones(())), []
    for _ in range(51):
        update, state = optimiser.update(jnp.ones(()), state)
        sizes.append(-float(update))
    assert sizes[0] == 0
    assert max(sizes) == pytest.approx(0.3)
    assert np.argmax(sizes) == 5
    assert sizes[50] == pytest.approx(0, abs=1e-6)
    plain = optax.sgd(0.1)
    assert paced(lambda _: plain, 50, None) is plain
