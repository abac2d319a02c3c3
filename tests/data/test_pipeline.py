"""Crops are a function of seed and number; any batch can be the first; processes share without gap or overlap."""

import numpy as np
import pytest

from jfusion.data.patches import TURNS, VALID, Crops, crops, hold_out, symmetries, turned, turned_crops
from jfusion.data.pipeline import loader, stacked
from jfusion.data.simulate import Simulation
from jfusion.errors import InputError
from jfusion.operators import Grid, ObservationModel, SpatialResponse, mtf_psf

NUMBERS = [{"x": np.asarray(i)} for i in range(7)]


def images(height: int = 12, width: int = 16) -> dict[str, np.ndarray]:
    """Two scenes whose values say where a pixel lies, at two pixel sizes."""
    rows, columns = np.mgrid[:height, :width]
    low = np.stack([np.stack([rows, columns, np.full_like(rows, n)], -1) for n in range(2)]).astype(np.float32)
    return {"lr": low, "target": low.repeat(2, 1).repeat(2, 2)}


def first(iterator, count: int) -> list:
    return [next(iterator) for _ in range(count)]


def test_crops_are_aligned_and_depend_on_seed_and_number_alone() -> None:
    source = Crops(images(), (3, 4), seed=5)
    for k in (0, 7, 10**9):
        crop, again = source[k], Crops(images(), (3, 4), seed=5)[k]
        assert crop["lr"].shape == (3, 4, 3)
        np.testing.assert_array_equal(crop["lr"].repeat(2, 0).repeat(2, 1), crop["target"])
        np.testing.assert_array_equal(crop["lr"], again["lr"])
    places = {source.place(k) for k in range(400)}
    assert {n for n, _, _ in places} == {0, 1}
    assert {row for _, row, _ in places} == set(range(10))
    assert {column for _, _, column in places} == set(range(13))
    assert any(source.place(k) != Crops(images(), (3, 4), seed=6).place(k) for k in range(5))


def test_the_stream_is_the_one_it_always_was() -> None:
    """Golden values: a change of these numbers would change every run that is to be resumed."""
    source = Crops(images(), (3, 4), seed=5)
    assert [source.place(k) for k in range(4)] == GOLDEN


def test_crops_hold_valid_pixels_alone_where_they_can() -> None:
    valid = np.ones((12, 16), bool)
    valid[5, :9] = valid[:, 13] = False
    source = Crops(images(), (3, 4), seed=5, valid=valid)
    places = {source.place(k)[1:] for k in range(1500)}
    whole = [
        (row, column) for row in range(10) for column in range(13) if valid[row : row + 3, column : column + 4].all()
    ]
    assert places == set(whole)
    lines = np.arange(12) % 3 > 0
    source = Crops(images(), (3, 4), seed=5, valid=np.broadcast_to(lines[:, None], (12, 16)))
    assert {source.place(k)[1] for k in range(300)} == set(range(10))


def test_images_must_lie_on_one_grid() -> None:
    pair = images()
    with pytest.raises(InputError, match="no multiple"):
        Crops({**pair, "target": pair["target"][:, :-1]}, (3, 4))
    with pytest.raises(InputError, match="equally many"):
        Crops({**pair, "target": pair["target"][:1]}, (3, 4))


def simulation(height: int = 12, width: int = 16) -> Simulation:
    low, target = images(height, width).values()
    return Simulation({"lr": low, "guide": target[..., :1]}, ObservationModel({}, Grid.nested(2)), target)  # type: ignore[arg-type,dict-item]


def test_crops_of_a_simulation_are_no_larger_than_it() -> None:
    assert crops(simulation(), 8).size == (4, 4)
    assert crops(simulation(), 1).size == (1, 1)
    assert crops(simulation(), 1000)[0]["target"].shape == (24, 32, 3)


GRIDS = [Grid(2, (1, 0)), Grid(2, (0, 0)), Grid(3, (0, 2)), Grid(3, (1, 1)), Grid(1, (0, 0))]


def pair(grid: Grid, height: int = 8, width: int = 11) -> Simulation:
    """Every pixel holds its number; the low-resolution pixel that of the pixel on which its centre falls."""
    rows, columns = height * grid.ratio, width * grid.ratio
    target = np.arange(2 * rows * columns, dtype=np.float32).reshape(2, rows, columns, 1)
    lr = target[:, int(grid.centre[0]) :: grid.ratio, int(grid.centre[1]) :: grid.ratio]
    return Simulation({"lr": lr, "guide": -target}, ObservationModel({}, grid), target)  # type: ignore[arg-type,dict-item]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_turned_pairs_lie_on_the_same_grid(grid: Grid) -> None:
    corners = set()
    for turn in TURNS:
        view = turned(pair(grid), turn)
        assert view is not None
        again = view.target[:, int(grid.centre[0]) :: grid.ratio, int(grid.centre[1]) :: grid.ratio]
        np.testing.assert_array_equal(view.observation["lr"], again)
        np.testing.assert_array_equal(view.observation["guide"], -np.asarray(view.target))
        corners.add((float(view.target[0, 0, 0, 0]), view.target.shape))
    assert len(corners) == 8


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_turned_crops_hold_valid_pixels_alone(grid: Grid) -> None:
    data, valid = pair(grid), np.random.default_rng(0).random((8, 11)) > 0.1
    masked = data._replace(observation={**data.observation, VALID: valid[None, ..., None]})
    source = turned_crops(masked, 2 * grid.ratio, seed=1)
    assert len(source.sources) == 8
    numbers = np.asarray(data.observation["lr"])[:, valid]
    for k in range(60):
        crop = source[k]
        assert set(crop) == {"lr", "guide", "target"}
        assert np.isin(crop["lr"], numbers).all()


def test_pairs_are_not_turned_onto_places_between_pixels() -> None:
    data = pair(Grid.nested(2))._replace(model=ObservationModel({}, Grid(2, (0.25, 0.25))))
    assert [turn for turn in TURNS if turned(data, turn)] == [(False, False, False), (True, False, False)]


@pytest.mark.parametrize(
    ("kernel", "kept"), [(np.eye(5), 4), (np.outer([1, 2, 1], [1, 1, 1]), 4), (np.ones((3, 3)), 8), (np.tri(3), 2)]
)
def test_a_patch_is_turned_as_the_psf_allows(kernel: np.ndarray, kept: int) -> None:
    spatial = SpatialResponse((kernel / kernel.sum()).astype(np.float32), 3, (1, 1))
    assert len(symmetries(ObservationModel({"lr": spatial}, Grid.nested(3)))) == kept


@pytest.mark.parametrize("grid", GRIDS[:2], ids=str)
def test_turned_crops_are_seen_as_the_model_says(grid: Grid) -> None:
    spatial = SpatialResponse(mtf_psf(0.3, grid), grid.ratio, grid.phase)
    target = np.random.default_rng(0).random((1, 72, 64, 2), np.float32)
    data = Simulation({"lr": spatial(target)}, ObservationModel({"lr": spatial}, grid), target)
    source = turned_crops(data, 60, seed=3)
    assert len(source.sources) == 8
    for k in range(12):
        crop = source[k]
        assert crop["target"].shape == (60, 60, 2)
        inner = np.asarray(spatial(crop["target"]))[12:-12, 12:-12]
        np.testing.assert_allclose(crop["lr"][12:-12, 12:-12], inner, atol=1e-5)
        np.testing.assert_array_equal(crop["lr"], turned_crops(data, 60, seed=3)[k]["lr"])


@pytest.mark.parametrize(("height", "width", "along"), [(12, 8, 0), (12, 12, 0), (8, 12, 1)])
def test_the_held_out_region_is_not_trained_on(height: int, width: int, along: int) -> None:
    data = simulation(height, width)
    parts = hold_out(data, 0.25, gap=2)
    places = [set(np.unique(part.target[..., along]).tolist()) for part in parts]
    assert places == [set(range(7)), set(range(9, 12))]
    for part in parts:
        assert part.target.shape[2 - along] == data.target.shape[2 - along]
        assert part.observation["guide"].shape == (*part.target.shape[:3], 1)
        np.testing.assert_array_equal(part.observation["lr"].repeat(2, 1).repeat(2, 2), part.target)
    with pytest.raises(InputError, match="parted"):
        hold_out(data, 0.01)


def test_plain_and_threaded_batches_are_the_same() -> None:
    source = Crops(images(), (3, 4))
    for one, two in zip(first(stacked(source, 4, start=3), 5), first(loader(source, 4, start=3), 5), strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("shuffle", [None, 1])
def test_any_batch_can_be_the_first(threads: int, shuffle: int | None) -> None:
    def values(start: int, count: int) -> list[list[int]]:
        rows = loader(NUMBERS, 4, start=start, shuffle=shuffle, threads=threads)
        return [row["x"].tolist() for row in first(rows, count)]

    whole = values(0, 9)
    for start in range(8):
        assert values(start, 2) == whole[start : start + 2]
    flat = [x for row in whole[:7] for x in row]  # 28 records are four rounds of seven
    assert [sorted(flat[i : i + 7]) for i in range(0, 28, 7)] == [list(range(7))] * 4
    assert (flat[:7] == list(range(7))) == (shuffle is None)


@pytest.mark.parametrize("make", [loader, stacked])
def test_processes_share_each_batch(make) -> None:
    whole = first(make(NUMBERS, 4, start=2), 5)
    parts = [first(make(NUMBERS, 4, start=2, process=p, processes=2), 5) for p in range(2)]
    for k, row in enumerate(whole):
        assert sorted([*parts[0][k]["x"], *parts[1][k]["x"]]) == sorted(row["x"])
        assert len(parts[0][k]["x"]) == 2
    with pytest.raises(InputError, match="3 processes"):
        next(make(NUMBERS, 4, processes=3))


GOLDEN = [(1, 8, 0), (0, 7, 10), (1, 2, 9), (1, 7, 3)]
