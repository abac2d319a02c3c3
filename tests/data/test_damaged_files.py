"""Bytes of tiny files are changed at random: a reader gives an image or an InputError, soon and in little memory."""

import resource
import time

import pytest
import tiny_files as files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jfusion.data import readers
from jfusion.errors import InputError

FORMATS = {
    "image.tif": files.tiff,
    "image.vrt": files.vrt,
    "image.hdr": files.envi,
    "image5.mat": files.mat5,
    "image73.mat": files.mat73,
    "image.h5": files.hdf5,
}
PLACE = st.floats(0, 1, exclude_max=True)
CHANGES = st.lists(st.tuples(PLACE, st.integers(0, 255)), min_size=1, max_size=6)


@pytest.fixture(scope="module", params=FORMATS)
def damageable(request, tmp_path_factory):
    path = FORMATS[request.param](tmp_path_factory.mktemp("damaged"))
    assert path.name == request.param
    return path, path.read_bytes()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # rasterio's log of texts not in UTF-8
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES, early=st.booleans(), kept=st.sampled_from([1.0, 1.0, 0.9, 0.5]))
def test_mutated_files(damageable, changes, early, kept):
    path, original = damageable
    content = bytearray(original)
    reach = min(len(content), 600) if early else len(content)
    for place, value in changes:
        content[int(place * reach)] = value
    path.write_bytes(content[: int(kept * len(content))])
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        assert readers.read(path).image.size > 0
    except InputError as error:
        assert path.stem in str(error)  # noqa: PT017
    assert time.perf_counter() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20
