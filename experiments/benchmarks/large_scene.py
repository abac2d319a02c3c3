"""A scene larger than memory through `jfusion fuse`, beside GDAL: `python -m experiments.benchmarks.large_scene`.

Makes a panchromatic and a multispectral GeoTIFF of repeated noise, which compresses badly, and fuses them by each
system in its own process. Printed are the seconds of the whole command and its peak of resident memory above that of
an idle interpreter with jax. Where GDAL's programs are installed, its pansharpening and the conversion of its product
to a cloud-optimised GeoTIFF run on the same files.
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

IDLE = "import jax.numpy as jnp; jnp.ones(3).sum().block_until_ready()"
STRIP = 256


@dataclass(frozen=True)
class Settings:
    """Sizes of the benchmark."""

    size: int = 8192
    """Height and width of the panchromatic image; a multiple of 256 and of the ratio."""
    ratio: int = 4
    bands: int = 4
    systems: tuple[str, ...] = ("brovey", "mtf_glp_cbd")


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


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds and peak of resident memory in MiB of a command that must succeed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {said.decode()[-500:]}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main(settings: Settings) -> None:
    """Prints one row a command."""
    table = Table("command", "seconds", "MiB above idle")
    idle = measured([sys.executable, "-c", IDLE])[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pan, ms, out, cog = (str(folder / f"{file}.tif") for file in ("pan", "ms", "out", "cog"))
        write_noise(Path(pan), settings.size, 1, 1.0)
        write_noise(Path(ms), settings.size // settings.ratio, settings.bands, float(settings.ratio))
        for system in settings.systems:
            command = [sys.executable, "-m", "jfusion.cli", "fuse", ms, pan, out, "--overwrite", "--system", system]
            seconds, peak = measured(command)
            table.add_row(f"jfusion fuse --system {system}", f"{seconds:.1f}", f"{peak - idle:.0f}")
        if shutil.which("gdal_pansharpen.py") and shutil.which("gdal_translate"):
            options = ["-co", "COMPRESS=DEFLATE"]
            sharpen = ["gdal_pansharpen.py", pan, ms, out, *options, "-co", "TILED=YES", "-threads", "ALL_CPUS"]
            convert = ["gdal_translate", "-of", "COG", *options, "-co", "NUM_THREADS=ALL_CPUS", out, cog]
            for command in (sharpen, convert):
                table.add_row(command[0], f"{measured(command)[0]:.1f}", "-")
    Console().print(f"{settings.size} x {settings.size}, ratio {settings.ratio}, {settings.bands} bands")
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Settings))
