"""What the tests run in other processes: on eight devices, as two processes, and to be killed.

`python children.py eight`, `eight_stopped FOLDER`, `pair PROCESS PORT FOLDER`, or `kills FOLDER`.
"""

import dataclasses
import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

MODE = sys.argv[1]
COUNT = f"--xla_force_host_platform_device_count={8 if MODE.startswith('eight') else 1}"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {COUNT}"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
import toys  # noqa: E402
from flax import nnx  # noqa: E402
from jax.sharding import Mesh, PartitionSpec  # noqa: E402

from jfusion.catalogue import Bands  # noqa: E402
from jfusion.training import folder as run_folder  # noqa: E402
from jfusion.training.checkpoints import damage_in  # noqa: E402
from jfusion.training.loop import train  # noqa: E402
from jfusion.training.players import NETWORK, make_players  # noqa: E402
from jfusion.training.step import AXIS, Batch, Devices, begin, make_body, make_judge, make_step  # noqa: E402


def eight() -> dict[str, float]:
    """Differences between one device and eight, of one step with the same batch."""
    assert jax.local_device_count() == 8
    data = toys.simulation(8, 8)
    bands = Bands.of(data.observation, data.model)
    whole, one, all_eight = Batch(data.observation, data.target), Devices((jax.devices()[0],)), Devices.all()
    found = {}
    for name, system in (("plain", toys.row()), ("gan", toys.gan(turns=1))):
        method = system.method
        module = method.network(bands, rngs=nnx.Rngs(0))
        players, modules = make_players(method, module, bands, 1, 0, method.tiny)
        # plain descent at rate 1: the change of a parameter is its gradient
        players = {n: dataclasses.replace(p, optimiser=optax.sgd(1.0)) for n, p in players.items()}

        def after(devices: Devices, batch: Batch, players=players, modules=modules):
            state, model = devices.replicate((begin(players, modules), data.model))
            return make_step(players, devices)(state, devices.share(batch), model)[0].players

        alone = after(one, whole)
        assert toys.furthest(begin(players, modules).players, alone) > 1e-3
        found[f"{name}_pmap"] = toys.furthest(alone, after(all_eight, whole))
        if name == "gan":
            continue
        six = jax.tree.map(lambda x: x[:6], whole)
        assert len(Devices.of(6).devices) == 6
        found["six_on_eight"] = toys.furthest(after(one, six), after(Devices.of(6), six))
        mesh = Mesh(np.array(jax.devices()), (AXIS,))
        specs = {"in_specs": (PartitionSpec(), PartitionSpec(AXIS), PartitionSpec()), "out_specs": PartitionSpec()}
        mapped = jax.jit(jax.shard_map(make_body(players), mesh=mesh, check_vma=False, **specs))
        found["shard_map"] = toys.furthest(alone, mapped(begin(players, modules), whole, data.model)[0].players)
        five = jax.tree.map(lambda x: x[:5], whole)
        judge = make_judge(players[NETWORK], all_eight, five, data.model)
        judged = judge(begin(players, modules).players[NETWORK])
        module.eval()
        errors = (module(five.observation, data.model) - five.target) ** 2
        found["five_judged_on_eight"] = abs(judged - float(errors.mean()) ** 0.5)
    return found


def eight_stopped(folder: str) -> None:
    """A run on eight devices that is told to stop after its second step of four."""
    assert len(Devices.of(8).devices) == 8
    before = run_folder.Run.must_stop

    def must_stop(self, step):
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return before(self, step)

    run_folder.Run.must_stop = must_stop
    train(toys.row(optimiser=lambda n: optax.sgd(0.1)), toys.simulation(), steps=4, batch=8, folder=Path(folder))


def pair(process: str, port: str, folder: str) -> None:
    """One of two processes that train together; the first writes what came of it, the second is told to stop."""
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(process))
    assert jax.device_count() == 2
    system, validation = toys.row(optimiser=lambda n: optax.sgd(0.1)), toys.simulation(3, 8, seed=5)
    result = train(system, toys.simulation(), steps=3, folder=Path(folder, "run"), validation=validation, every=2)
    if process == "0":
        np.savez(Path(folder, "pair.npz"), *toys.arrays(result.network), losses=result.losses)

    def tell(done: int, total: int, values: object) -> None:
        if process == "1" and done == 20:
            os.kill(os.getpid(), signal.SIGTERM)

    train(system, toys.simulation(), steps=100_000, folder=Path(folder, "told"), progress=tell)


STEPS, EVERY, KILLS = 300, 3, 20


def trained(folder: Path, every: int, stop: int) -> None:
    """What a child does: it says each step as it ends, tells itself to ``stop``, and leaves the result's digest."""
    told = os.open(folder.with_suffix(".steps"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    before = run_folder.Run.must_stop

    def must_stop(self, step):
        os.write(told, f"{step}\n".encode())
        if step == stop:
            os.kill(os.getpid(), signal.SIGTERM)
        return before(self, step)

    run_folder.Run.must_stop = must_stop
    result = train(toys.row(), toys.simulation(), sizes={"dropout": 0.2}, steps=STEPS, folder=folder, every=every)
    folder.with_suffix(".digest").write_text(toys.digest(result.network))


def start(folder: Path, every: int = EVERY, stop: int = 0) -> int:
    folder.with_suffix(".steps").unlink(missing_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads, before any is there
        if child := os.fork():
            return child
    code = 1
    try:
        trained(folder, every, stop)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def said(folder: Path) -> list[int]:
    path = folder.with_suffix(".steps")
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def newest(folder: Path) -> int:
    """Without jax, which a process that forks must not have started."""
    names = [path.name for path in folder.glob("checkpoints/*") if path.name.isdecimal()]
    return max((int(name) for name in names if not damage_in(folder / "checkpoints" / name)), default=0)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kills(folder: str) -> dict:
    """Kills children at random moments: what each left, and the results of all that went on to the end."""
    warnings.simplefilter("error")
    jax.config.update("jax_compilation_cache_dir", f"{folder}/cache")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    whole, killed, stopped = (Path(folder, name) for name in ("whole", "killed", "stopped"))
    assert ended(start(whole, every=STEPS)) == 0
    moments, story = random.Random(0), []
    for _ in range(KILLS):
        before = newest(killed)
        child = start(killed)
        deadline = time.monotonic() + 30
        if moments.random() < 0.8:  # else also while it starts
            while not said(killed) and time.monotonic() < deadline:
                time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.4))
        os.kill(child, signal.SIGKILL)
        code = ended(child)
        left = any("unfinished" in path.name for path in killed.glob("checkpoints/*"))
        steps = said(killed)
        story.append({"before": before, "steps": steps, "after": newest(killed), "code": code, "unfinished": left})
    assert ended(start(killed, every=STEPS)) == 0
    code = ended(start(stopped, every=STEPS, stop=7))
    stop = {"code": code, "last": said(stopped)[-1], "saved": newest(stopped)}
    assert ended(start(stopped, every=STEPS)) == 0
    digests = [path.with_suffix(".digest").read_text() for path in (whole, killed, stopped)]
    return {"story": story, "stop": stop, "digests": digests}


if __name__ == "__main__":
    answer = globals()[MODE](*sys.argv[2:])
    if answer is not None:
        print(json.dumps(answer))
