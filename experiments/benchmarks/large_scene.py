"""A scene larger than memory through `jfusion fuse`, beside GDAL: `python -m experiments.benchmarks.large_scene`.

Makes a panchromatic and a multispectral GeoTIFF of repeated noise, which compresses badly, and fuses them by each
system in its own process. Printed are the seconds of the whole command and its peak of resident memory above that of
an idle interpreter with jax. Where GDAL's programs are installed, its pansharpening of the same files runs in turns
with ours, once into a GeoTIFF and once into a cloud-optimised one, as ours is.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import tyro
from rasterio.transform import from_origin
from rasterio.windows import Window
from rich.console import Console
from rich.table import Table

from jfusion.errors import RunError
from jfusion.process import answered

IDLE = "import jax.numpy as jnp; jnp.ones(3).sum().block_until_ready()"
STRIP = 256


@dataclass(frozen=True)
class Scene:
    """What is fused, and how."""

    size: int = 8192
    """Height and width of the panchromatic image; a multiple of 256 and of the ratio."""
    ratio: int = 4
    bands: int = 4
    systems: tuple[str, ...] = ("brovey", "mtf_glp_cbd", "fuse")


def write_noise(path: Path, size: int, bands: int, pixel: float) -> None:
    """A tiled, compressed 16-bit GeoTIFF of one strip of smooth noise repeated down the image."""
    rng = np.random.default_rng(bands)
    coarse = rng.normal(4000, 800, (bands, STRIP // 4, size // 4))
    strip = np.kron(coarse, np.ones((1, 4, 4))) + rng.normal(0, 100, (bands, STRIP, size))
    strip = np.clip(strip, 1, 65535).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", width=size, height=size, count=bands, crs="EPSG:32633", tiled=True,
        compress="deflate", transform=from_origin(5e5, 5e6, pixel, pixel),
    ) as dataset:  # fmt: skip
        for row in range(0, size, STRIP):
            height = min(STRIP, size - row)
            dataset.write(strip[:, :height], window=Window(0, row, size, height))


def measured(command: list[str], cache: Path) -> tuple[float, float]:
    """Seconds and peak of resident memory in MiB of a command whose user's cache is the folder ``cache``.

    Raises:
        RunError: it failed.
    """
    start = time.perf_counter()
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RunError(f"{' '.join(command)} failed: {said.decode()[-500:]}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def commands(scene: Scene, pan: Path, ms: Path, out: Path) -> dict[str, list[str]]:
    """The commands that are compared, all of which write the file ``out``."""
    ours = [sys.executable, "-m", "jfusion.cli", "fuse", str(ms), str(pan), str(out), "--system"]
    made = {f"jfusion fuse --system {system}": [*ours, system] for system in scene.systems}
    first = scene.systems[0]
    made[f"jfusion fuse --system {first} --no-cog"] = [*ours, first, "--no-cog"]
    made[f"jfusion fuse --system {first}, never compiled before"] = ["env", "JAX_COMPILATION_CACHE_DIR=", *ours, first]
    if shutil.which("gdal_pansharpen.py"):
        sharpen = ["gdal_pansharpen.py", str(pan), str(ms), str(out), "-threads", "ALL_CPUS"]
        for option in ("COMPRESS=DEFLATE", "NUM_THREADS=ALL_CPUS"):
            sharpen += ["-co", option]
        made["gdal_pansharpen"] = [*sharpen, "-co", "TILED=YES", "-co", "PREDICTOR=2"]
        made["gdal_pansharpen -of COG"] = [*sharpen, "-of", "COG", "-co", "PREDICTOR=YES"]
    return made


def measure(scene: Scene, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds, and MiB above idle, of each command in each round; in a round each has one turn.

    Raises:
        RunError: a command failed.
    """
    with tempfile.TemporaryDirectory() as name:
        pan, ms, out = (Path(name) / f"{file}.tif" for file in ("pan", "ms", "out"))
        cache = Path(name) / "cache"
        idle = measured([sys.executable, "-c", IDLE], cache)[1]
        write_noise(pan, scene.size, 1, 1.0)
        write_noise(ms, scene.size // scene.ratio, scene.bands, float(scene.ratio))
        rivals = commands(scene, pan, ms, out)
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
        for _ in range(rounds):
            for name, command in rivals.items():
                out.unlink(missing_ok=True)
                seconds, peak = measured(command, cache)
                turns[name].append((seconds, peak - idle))
    return turns


def main(scene: Scene) -> None:
    """Prints one row a command."""
    table = Table("command", "seconds", "MiB above idle")
    for name, [(seconds, peak)] in measure(scene, 1).items():
        table.add_row(name, f"{seconds:.1f}", f"{peak:.0f}")
    Console().print(f"{scene.size} x {scene.size}, ratio {scene.ratio}, {scene.bands} bands")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(answered(lambda: main(tyro.cli(Scene))))
