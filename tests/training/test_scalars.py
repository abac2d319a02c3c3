"""Figures survive a kill, lose what lies beyond the checkpoint, and are what TensorBoard reads."""

import pytest

from jfusion.errors import RunError
from jfusion.training import events, scalars
from jfusion.training.crc32c import crc32c
from jfusion.training.scalars import Scalars

HEADER = "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c"
EVENT = (
    "2e00000000000000c5cb57fa0900001040fc54d94110ac022a200a0b0a046c6f7373150000003f0a110a0a76616c69646174"
    "696f6e15000000c0759470f0"
)
"""Records that tensorboardX 2.6.5 wrote."""


@pytest.mark.parametrize(
    ("data", "value"), [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (b"123456789", 0xE3069283)]
)
def test_checks_are_those_of_the_standard(data: bytes, value: int) -> None:
    assert crc32c(data) == value


def test_events_are_what_tensorboard_writers_write() -> None:
    assert events.header(1.5).hex() == HEADER
    assert events.event(1_700_000_000.25, 300, {"loss": 0.5, "validation": -2.0}).hex() == EVENT


def test_a_run_that_goes_on_removes_what_was_lost(tmp_path) -> None:
    first = Scalars(tmp_path, 0)
    for step in (10, 20, 30):
        first.write(step, {"loss": 1 / step})
    size = (tmp_path / scalars.EVENTS).stat().st_size
    with (tmp_path / scalars.LINES).open("a") as file:
        file.write('{"step": 40, "lo')  # a kill in the middle of a line; nothing was closed
    assert [row["step"] for row in scalars.read(tmp_path)] == [10, 20, 30]
    first.close()
    second = Scalars(tmp_path, 20)
    second.write(25, {"loss": 0.5})
    second.close()
    assert [(row["step"], row["loss"]) for row in scalars.read(tmp_path)] == [(10, 0.1), (20, 0.05), (25, 0.5)]
    assert (tmp_path / scalars.EVENTS).stat().st_size == size


def test_a_full_disk_is_one_sentence(tmp_path) -> None:
    class Full:
        name = "scalars.jsonl"

        def write(self, _: bytes) -> None:
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            pass

    log = Scalars(tmp_path, 0)
    log._lines.close()
    log._lines = Full()  # type: ignore[assignment]
    with pytest.raises(RunError, match=r"step 3 could not be written .*No space left"):
        log.write(3, {"loss": 1.0})
    log.close()
