"""Tiny archives as the publishers lay them out: their names, keys, number types, axis orders and formats."""

from pathlib import Path

import h5py
import numpy as np
import scipy.io
import tifffile
from PIL import Image


def pattern(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Numbers of 11 bits that tell rows, columns, bands and seeds apart."""
    weights = np.random.default_rng(seed).integers(1, 2**11, len(shape))
    index = np.indices(shape, sparse=True)
    return (sum(weight * axis for weight, axis in zip(weights, index, strict=True)) % 2047).astype(dtype)


def matlab5(path: Path, key: str, image: np.ndarray, **others: np.ndarray) -> None:
    scipy.io.savemat(path, {key: image, **others}, do_compression=True)


def matlab73(path: Path, key: str, image: np.ndarray) -> None:
    """Version 7.3 as MATLAB writes it: HDF5 with the axes reversed behind 512 bytes of its own."""
    with h5py.File(path, "w", userblock_size=512) as file:
        file.create_dataset(key, data=image.T).attrs["MATLAB_class"] = np.bytes_(
            {"f8": "double", "f4": "single"}[image.dtype.str[1:]]
        )
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: TEST".ljust(512, b" "))


def planar_tiff(path: Path, key: None, image: np.ndarray) -> None:
    """One image of many samples, band after band."""
    tifffile.imwrite(path, np.moveaxis(image, -1, 0), planarconfig="separate", photometric="minisblack")


def pixel_tiff(path: Path, key: None, image: np.ndarray) -> None:
    """One image of many samples, pixel after pixel."""
    tifffile.imwrite(path, image, planarconfig="contig", photometric="minisblack")


def envi_pix(path: Path, key: None, image: np.ndarray) -> None:
    """ENVI with the suffix .pix, whose header lists wavelengths of bands that are not spectral too."""
    path.write_bytes(np.moveaxis(image, -1, 0).tobytes())
    code = {"u2": 12, "f4": 4}[image.dtype.str[1:]]
    wavelengths = ", ".join(str(374.4 + 14.3 * band) for band in range(image.shape[2] - 2))
    path.with_suffix(".hdr").write_text(
        f"ENVI\nsamples = {image.shape[1]}\nlines = {image.shape[0]}\nbands = {image.shape[2]}\nheader offset = 0\n"
        f"data type = {code}\ninterleave = bsq\nbyte order = 0\nwavelength = {{{wavelengths}, 49.0, 50.0}}\n"
    )


def cave(folder: Path, scenes: tuple[str, ...], shape: tuple[int, int] = (4, 5)) -> dict[str, np.ndarray]:
    """complete_ms_data: a folder in a folder each, 16-bit grey PNG (watercolors 8-bit RGBA) and a BMP."""
    images = {}
    for number, scene in enumerate(scenes):
        images[scene] = image = pattern((*shape, 31), "uint16", number) * 31
        home = folder / "complete_ms_data" / scene / scene
        home.mkdir(parents=True)
        Image.new("RGB", shape[::-1]).save(home / f"{scene.removesuffix('_ms')}_RGB.bmp")
        for band in range(31):
            path = home / f"{scene}_{band + 1:02d}.png"
            if scene == "watercolors_ms":
                grey = (image[..., band] % 256).astype(np.uint8)
                rgba = np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)
                Image.fromarray(rgba).save(path)
                image[..., band] = grey * np.uint16(257)
            else:
                Image.fromarray(image[..., band]).save(path)
    return images


def harvard(folder: Path, scenes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """CZ_hsdb: one file of version 5 an image, with doubles `ref` and the mask `lbl`."""
    home = folder / "CZ_hsdb"
    home.mkdir(parents=True)
    (home / "calib.txt").write_text("0.07\n" * 31)
    images = {scene: pattern((4, 3, 31), "float64", number) / 2**14 for number, scene in enumerate(scenes)}
    for scene, image in images.items():
        matlab5(home / f"{scene}.mat", "ref", image, lbl=np.ones(image.shape[:2]))
    return images


def pancollection(path: Path, count: int, bands: int, size: int, truth: bool) -> dict[str, np.ndarray]:
    """Doubles (example, band, height, width): pan of `size`, ms a quarter of it, lms, and gt if there is truth."""
    high, low = (count, bands, size, size), (count, bands, size // 4, size // 4)
    seed = sum(path.name.encode())
    arrays = {"ms": pattern(low, "f8", seed) + 0.25, "lms": pattern(high, "f8", seed + 1)}
    arrays["pan"] = pattern((count, 1, size, size), "f8", seed + 2)
    if truth:
        arrays["gt"] = pattern(high, "f8", seed + 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return arrays
