"""The evaluation of one product: registry, values, checks."""

from functools import partial

import numpy as np
import pytest

from jfusion.errors import InputError
from jfusion.metrics import WITH_REFERENCE, WITHOUT_REFERENCE, Metric, evaluate, psnr, q2n, sam, without_reference

RNG = np.random.default_rng(0)
REFERENCE = RNG.uniform(0.2, 0.8, (24, 32, 4)).cumsum(1).astype(np.float32) / 26
NOISE = RNG.standard_normal((24, 32, 4)).astype(np.float32)
SETTINGS = {"ratio": 4, "data_range": 1.0, "block": 8}
FAST = {name: WITH_REFERENCE[name] for name in ("PSNR", "SAM")}


def degrade(image):
    height, width, bands = image.shape
    return image.reshape(height // 4, 4, width // 4, 4, bands).mean((1, 3))


def full_resolution(noise):
    product, guide = REFERENCE + noise * NOISE, REFERENCE.mean(-1, keepdims=True)
    observed = {"lr": degrade(REFERENCE), "product_lr": degrade(product), "guide_lr": degrade(guide)}
    return {"product": product, "guide": guide, **observed, "block": 8}


def better(metric, first, second):
    return first > second if metric.best == "max" else first < second


def test_less_noise_is_better_by_every_metric():
    good, bad = (evaluate(REFERENCE + noise * NOISE, REFERENCE, **SETTINGS) for noise in (0.01, 0.1))
    assert list(good) == list(WITH_REFERENCE) == ["PSNR", "SAM", "ERGAS", "SSIM", "UIQI", "Q2n", "CC", "RMSE", "SCC"]
    assert all(isinstance(value, float) for value in good.values())
    for name, metric in WITH_REFERENCE.items():
        assert better(metric, good[name], bad[name]), name


def test_less_noise_is_better_without_a_reference():
    good, bad = (without_reference(**full_resolution(noise)) for noise in (0.01, 0.1))
    assert list(good) == list(WITHOUT_REFERENCE) == ["D_lambda", "D_s", "QNR", "D_lambda_K", "HQNR"]
    for name, metric in WITHOUT_REFERENCE.items():
        assert better(metric, good[name], bad[name]), name


@pytest.mark.parametrize("metric", [*WITH_REFERENCE.items(), *WITHOUT_REFERENCE.items()], ids=lambda item: item[0])
def test_every_metric_says_what_it_is(metric):
    name, metric = metric
    assert metric.name == name
    assert metric.convention
    assert metric.source
    assert metric.best in ("max", "min")


def test_values_are_those_of_the_functions():
    product = REFERENCE + 0.05 * NOISE
    dian = Metric("PSNR (8 bit)", partial(psnr, convention="dian8bit"), "dian8bit", "by definition", "max", "dB")
    metrics = {"PSNR": WITH_REFERENCE["PSNR"], dian.name: dian, "Q2n": WITH_REFERENCE["Q2n"]}
    values = evaluate(1000 * product, 1000 * REFERENCE, ratio=4, data_range=1000, block=8, metrics=metrics)
    expected = [
        psnr(product, REFERENCE),
        psnr(product, REFERENCE, convention="dian8bit"),
        q2n(product, REFERENCE, block=8),
    ]
    assert list(values.values()) == pytest.approx([float(value) for value in expected], rel=1e-4)


def test_digital_numbers_and_a_mask():
    product, reference = (np.round(1000 * image).astype(np.uint16) for image in (REFERENCE + 0.05, REFERENCE))
    mask = np.arange(24)[:, None] * np.ones((1, 32)) < 16
    values = evaluate(product, reference, ratio=4, data_range=1000, mask=mask, metrics=FAST)
    top = [image[:16].astype(np.float32) for image in (product, reference)]
    assert values["SAM"] == pytest.approx(float(sam(*top)), rel=1e-5)
    assert values["PSNR"] == pytest.approx(float(psnr(*top, data_range=1000)), rel=1e-5)


def test_pixels_without_data_need_a_mask():
    product, mask = REFERENCE + 0.05, np.ones((24, 32), bool)
    product[3, 4], mask[3, 4] = np.nan, False
    with pytest.raises(InputError, match="product must be finite in all valid pixels, but 4 values are not"):
        evaluate(product, REFERENCE, metrics=FAST, **SETTINGS)
    values = evaluate(product, REFERENCE, mask=mask, metrics=FAST, **SETTINGS)
    assert all(np.isfinite(list(values.values())))

    images = full_resolution(0.01)
    images["lr"][0, 1] = np.inf
    with pytest.raises(InputError, match="lr must be finite"):
        without_reference(**images)
    mask[2, 5] = False  # under the pixel (0, 1) of lr
    metrics = {name: WITHOUT_REFERENCE[name] for name in ("D_lambda", "D_lambda_K")}
    values = without_reference(**images, mask=mask, metrics=metrics)
    assert np.isfinite(values["D_lambda"])
    assert np.isnan(values["D_lambda_K"])  # lr is a single block


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ratio": 0.25}, "the ratio must be at least 1"),
        ({"data_range": 0.0}, "data range positive"),
        ({"mask": np.zeros((24, 32), bool)}, "no valid pixel"),
        ({"mask": np.ones((24, 32))}, "must be boolean"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        evaluate(REFERENCE, REFERENCE, metrics=FAST, **(SETTINGS | changes))


def test_one_image_at_a_time():
    with pytest.raises(InputError, match="one image"):
        evaluate(REFERENCE[None], REFERENCE[None], **SETTINGS)
    images = full_resolution(0.01)
    with pytest.raises(InputError, match="must be"):
        without_reference(**(images | {"lr": images["lr"][None]}))
