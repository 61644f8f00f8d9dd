"""The registers of the transport: who may write what, and when."""

import pytest

from pyvmm.devices.virtio.abi import virtio_mmio as mm
from tests.devices.virtio_driver import (
    ACKNOWLEDGE,
    ALL,
    DRIVER,
    DRIVER_OK,
    FAILED,
    FEATURES_OK,
    NEEDS_RESET,
    RAM,
    VERSION_1,
    Board,
    Collector,
    Driver,
    Port,
)

UP = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK
READ_ONLY = [
    mm.VIRTIO_MMIO_MAGIC_VALUE,
    mm.VIRTIO_MMIO_VERSION,
    mm.VIRTIO_MMIO_DEVICE_ID,
    mm.VIRTIO_MMIO_VENDOR_ID,
    mm.VIRTIO_MMIO_DEVICE_FEATURES,
    mm.VIRTIO_MMIO_QUEUE_NUM_MAX,
    mm.VIRTIO_MMIO_INTERRUPT_STATUS,
    mm.VIRTIO_MMIO_CONFIG_GENERATION,
]
WRITE_ONLY = [
    mm.VIRTIO_MMIO_DEVICE_FEATURES_SEL,
    mm.VIRTIO_MMIO_DRIVER_FEATURES,
    mm.VIRTIO_MMIO_DRIVER_FEATURES_SEL,
    mm.VIRTIO_MMIO_QUEUE_SEL,
    mm.VIRTIO_MMIO_QUEUE_NUM,
    mm.VIRTIO_MMIO_QUEUE_NOTIFY,
    mm.VIRTIO_MMIO_INTERRUPT_ACK,
    mm.VIRTIO_MMIO_QUEUE_DESC_LOW,
    mm.VIRTIO_MMIO_QUEUE_DESC_HIGH,
    mm.VIRTIO_MMIO_QUEUE_AVAIL_LOW,
    mm.VIRTIO_MMIO_QUEUE_USED_HIGH,
]


@pytest.fixture
def sink() -> Collector:
    return Collector()


@pytest.fixture
def board(sink: Collector) -> Board:
    return Board([Port("", sink, is_console=True), Port("agent", Collector())])


def test_the_device_says_what_it_is(board: Board) -> None:
    assert board.read(mm.VIRTIO_MMIO_MAGIC_VALUE) == 0x74726976
    assert board.read(mm.VIRTIO_MMIO_VERSION) == 2
    assert board.read(mm.VIRTIO_MMIO_DEVICE_ID) == 3


def test_features_are_offered_in_halves_and_beyond_them_is_nothing(board: Board) -> None:
    offered = []
    for half in (0, 1, 2, 0xFFFF_FFFF):
        board.write(mm.VIRTIO_MMIO_DEVICE_FEATURES_SEL, half)
        offered.append(board.read(mm.VIRTIO_MMIO_DEVICE_FEATURES))
    assert offered == [1 << 28 | 1 << 29 | 0b111, 1, 0, 0]


@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("register", READ_ONLY)
def test_registers_are_32_bits_wide(board: Board, register: int, size: int) -> None:
    assert board.read(register, size) == 0


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_odd_and_undefined_offsets_read_0_and_ignore_writes(board: Board, size: int) -> None:
    before = board.state()[0]
    undefined = [offset for offset in range(0x100) if offset % 4 or size != 4 or offset in (0x28, 0x3C, 0x40, 0xC0)]
    for offset in undefined:
        assert board.read(offset, size) == 0
        board.write(offset, (1 << 8 * size) - 1, size)
    assert board.state()[0] == {**before, "violations": before["violations"] + 2 * len(undefined)}


@pytest.mark.parametrize("register", WRITE_ONLY)
def test_registers_for_writing_read_0(board: Board, register: int) -> None:
    Driver(board).start()
    assert board.read(register) == 0


@pytest.mark.parametrize("register", READ_ONLY)
def test_registers_for_reading_keep_their_value(board: Board, register: int) -> None:
    before = board.read(register)
    board.write(register, ~before & 0xFFFF_FFFF)
    assert board.read(register) == before


def test_no_shared_memory_region_is_there(board: Board) -> None:
    assert {board.read(register) for register in (0xB0, 0xB4, 0xB8, 0xBC)} == {0xFFFF_FFFF}


def test_the_status_goes_up_step_by_step_and_reads_back(board: Board) -> None:
    driver = Driver(board)
    driver.negotiate()
    assert board.status == ACKNOWLEDGE | DRIVER | FEATURES_OK
    board.write(mm.VIRTIO_MMIO_STATUS, UP)
    assert board.status == UP
    assert board.mmio.violations == 0


@pytest.mark.parametrize("status", [DRIVER_OK, FEATURES_OK, DRIVER, DRIVER_OK | ACKNOWLEDGE, FEATURES_OK | DRIVER_OK])
def test_steps_cannot_be_left_out(board: Board, status: int) -> None:
    board.write(mm.VIRTIO_MMIO_STATUS, status)
    assert board.status in (0, ACKNOWLEDGE)
    assert not board.mmio.running


@pytest.mark.parametrize("cleared", [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK])
def test_no_bit_of_the_status_can_be_cleared(board: Board, cleared: int) -> None:
    Driver(board).start()
    board.write(mm.VIRTIO_MMIO_STATUS, UP & ~cleared)
    assert (board.status, board.mmio.violations) == (UP, 1)


def test_reserved_bits_of_the_status_stay_0(board: Board) -> None:
    board.write(mm.VIRTIO_MMIO_STATUS, ACKNOWLEDGE | 0xFFFF_FF30)
    assert board.status == ACKNOWLEDGE


def test_a_driver_that_failed_can_only_reset(board: Board) -> None:
    Driver(board).start()
    board.write(mm.VIRTIO_MMIO_STATUS, UP | FAILED)
    board.write(mm.VIRTIO_MMIO_STATUS, UP)
    assert board.status == UP | FAILED
    assert not board.mmio.running
    board.write(mm.VIRTIO_MMIO_STATUS, 0)
    assert board.status == 0


@pytest.mark.parametrize("features", [ALL & ~VERSION_1, ALL | 1 << 20, ALL | 1 << 40, 0])
def test_features_that_were_not_offered_or_lack_version_1_are_refused(board: Board, features: int) -> None:
    Driver(board, features).negotiate()
    assert board.status == ACKNOWLEDGE | DRIVER


def test_features_are_final_once_they_are_accepted(board: Board) -> None:
    Driver(board).negotiate()
    board.write(mm.VIRTIO_MMIO_DRIVER_FEATURES, 0)
    assert board.mmio.features == ALL


@pytest.mark.parametrize("half", [2, 0xFFFF_FFFF])
def test_features_of_halves_that_are_not_there_are_ignored(board: Board, half: int) -> None:
    board.write(mm.VIRTIO_MMIO_STATUS, ACKNOWLEDGE | DRIVER)
    board.write(mm.VIRTIO_MMIO_DRIVER_FEATURES_SEL, half)
    board.write(mm.VIRTIO_MMIO_DRIVER_FEATURES, 0xFFFF_FFFF)
    assert board.mmio.features == 0


@pytest.mark.parametrize("queue", [6, 0x8000_0000, 0xFFFF_FFFF])
def test_a_queue_that_is_not_there_has_no_size_and_cannot_be_used(board: Board, queue: int) -> None:
    Driver(board).start()
    board.write(mm.VIRTIO_MMIO_QUEUE_SEL, queue)
    assert board.read(mm.VIRTIO_MMIO_QUEUE_NUM_MAX) == board.read(mm.VIRTIO_MMIO_QUEUE_READY) == 0
    board.write(mm.VIRTIO_MMIO_QUEUE_READY, 1)
    board.write(mm.VIRTIO_MMIO_QUEUE_NUM, 8)
    board.write(mm.VIRTIO_MMIO_QUEUE_NOTIFY, queue)
    assert board.status == UP


def prepare(board: Board, **changes: int) -> None:
    """A good queue 0 but for ``changes``, up to QueueReady."""
    values = {"size": 8, "desc": 0x10000, "avail": 0x11000, "used": 0x12000, **changes}
    Driver(board).negotiate()
    board.write(mm.VIRTIO_MMIO_QUEUE_SEL, 0)
    board.write(mm.VIRTIO_MMIO_QUEUE_NUM, values["size"])
    for register, ring in ((0x80, "desc"), (0x90, "avail"), (0xA0, "used")):
        board.write(register, values[ring] & 0xFFFF_FFFF)
        board.write(register + 4, values[ring] >> 32)
    board.write(mm.VIRTIO_MMIO_QUEUE_READY, 1)


@pytest.mark.parametrize(
    "change",
    [
        *({"size": size} for size in (0, 3, 7, 256, 65535, 65536, 0xFFFF_FFFF, 0x8000_0000)),
        *({ring: 0x10008 if ring == "desc" else 0x11001} for ring in ("desc", "avail", "used")),
        {"used": 0x12002},
        *({ring: RAM} for ring in ("desc", "avail", "used")),
        {"desc": RAM - 64},
        {"avail": RAM - 20},
        {"used": RAM - 68},
        *({ring: (1 << 64) - 16} for ring in ("desc", "avail", "used")),
        {"avail": 0x10000},
        {"avail": 0x1007E},
        {"used": 0x11014},
        {"desc": 0, "avail": 0, "used": 0},
    ],
    ids=str,
)
def test_a_queue_that_cannot_be_is_refused_and_the_device_needs_a_reset(board: Board, change: dict[str, int]) -> None:
    prepare(board, **change)
    assert board.read(mm.VIRTIO_MMIO_QUEUE_READY) == 0
    assert board.status & NEEDS_RESET
    # The driver is not up, so it gets no interrupt.
    assert not board.line.level
    board.write(mm.VIRTIO_MMIO_STATUS, UP)
    assert not board.mmio.running
    prepare(board)
    assert board.status == ACKNOWLEDGE | DRIVER | FEATURES_OK
    board.check()


def test_a_queue_up_to_the_last_byte_of_memory_is_good(board: Board) -> None:
    prepare(board, used=RAM - 72, desc=0)
    assert board.read(mm.VIRTIO_MMIO_QUEUE_READY) == 1


@pytest.mark.parametrize("value", [2, 3, 0x100, 0xFFFF_FFFF])
def test_queue_ready_takes_1_or_0(board: Board, value: int) -> None:
    prepare(board)
    board.write(mm.VIRTIO_MMIO_QUEUE_READY, value)
    assert board.read(mm.VIRTIO_MMIO_QUEUE_READY) == 1
    board.write(mm.VIRTIO_MMIO_QUEUE_READY, 0)
    board.write(mm.VIRTIO_MMIO_QUEUE_READY, value)
    assert board.read(mm.VIRTIO_MMIO_QUEUE_READY) == 0


def test_a_queue_that_is_ready_twice_starts_once(board: Board) -> None:
    prepare(board)
    before = board.state()[0]["queues"]
    board.write(mm.VIRTIO_MMIO_QUEUE_READY, 1)
    assert board.state()[0]["queues"] == before


def test_the_rings_of_a_queue_that_is_ready_cannot_be_moved(board: Board) -> None:
    prepare(board)
    before = board.state()[0]["queues"]
    for register in (0x38, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4):
        board.write(register, 4)
    assert board.state()[0]["queues"] == before


def test_queues_can_be_set_up_only_between_features_ok_and_driver_ok(board: Board) -> None:
    for status in (0, ACKNOWLEDGE, ACKNOWLEDGE | DRIVER):
        board.write(mm.VIRTIO_MMIO_STATUS, status)
        board.write(mm.VIRTIO_MMIO_QUEUE_NUM, 8)
        board.write(mm.VIRTIO_MMIO_QUEUE_DESC_LOW, 0x1000)
        board.write(mm.VIRTIO_MMIO_QUEUE_READY, 1)
    assert board.mmio.queues[0].size == board.mmio.queues[0].desc == 0
    assert board.read(mm.VIRTIO_MMIO_QUEUE_READY) == 0


@pytest.mark.parametrize("queue", [0, 1])
def test_registers_of_queues_are_ignored_after_driver_ok(board: Board, queue: int) -> None:
    Driver(board).start()
    before = board.state()[0]["queues"]
    board.write(mm.VIRTIO_MMIO_QUEUE_SEL, queue)
    for register in (0x38, 0x80, 0x84, 0x90, 0x94, 0xA0, 0xA4):
        board.write(register, 0xFFFF_FFFF)
    assert board.state()[0]["queues"] == before


def test_a_queue_taken_back_is_not_touched_any_more(board: Board, sink: Collector) -> None:
    driver = Driver(board).start()
    board.write(mm.VIRTIO_MMIO_QUEUE_SEL, 1)
    board.write(mm.VIRTIO_MMIO_QUEUE_READY, 0)
    assert board.read(mm.VIRTIO_MMIO_QUEUE_READY) == 0
    before = bytes(board.ram)
    driver.rings[1].notify()
    board.ports[0].resume()
    assert bytes(board.ram) == before
    assert not sink.data


def test_a_notification_too_early_waits_for_driver_ok_and_one_after_reset_does_nothing(
    board: Board, sink: Collector
) -> None:
    driver = Driver(board)
    driver.negotiate()
    driver.rings = [driver.set_up_queue(index) for index in range(6)]
    driver.put(1, b"early")
    assert not sink.data
    board.write(mm.VIRTIO_MMIO_STATUS, UP)
    assert sink.data == b"early"
    driver.put(1, b"in time")
    assert sink.data == b"earlyin time"
    board.write(mm.VIRTIO_MMIO_STATUS, 0)
    driver.put(1, b"late")
    assert sink.data == b"earlyin time"
    board.check()


def test_a_reset_takes_everything_back(board: Board) -> None:
    fresh = board.state()[0]
    driver = Driver(board).probe()
    driver.write(0, b"output")
    assert board.line.level
    board.write(mm.VIRTIO_MMIO_STATUS, 0)
    assert not board.line.level
    assert board.state()[0] == fresh


def test_the_line_is_high_until_all_reasons_are_acknowledged_and_rises_again_for_the_rest(board: Board) -> None:
    driver = Driver(board).probe()
    edges = board.line.edges
    driver.write(0, b"output")
    board.console.resize(100, 50)
    driver.write(0, b"more")
    assert board.read(mm.VIRTIO_MMIO_INTERRUPT_STATUS) == 3
    assert board.line.edges == edges + 1
    board.write(mm.VIRTIO_MMIO_INTERRUPT_ACK, 1)
    assert board.read(mm.VIRTIO_MMIO_INTERRUPT_STATUS) == 2
    assert (board.line.level, board.line.edges) == (True, edges + 2)
    board.write(mm.VIRTIO_MMIO_INTERRUPT_ACK, 0xFFFF_FFFF)
    assert (board.line.level, board.read(mm.VIRTIO_MMIO_INTERRUPT_STATUS)) == (False, 0)
    board.write(mm.VIRTIO_MMIO_INTERRUPT_ACK, 3)
    assert (board.line.level, board.line.edges) == (False, edges + 2)


def test_the_generation_changes_with_the_configuration(board: Board) -> None:
    before = board.read(mm.VIRTIO_MMIO_CONFIG_GENERATION)
    board.console.resize(132, 43)
    assert board.read(mm.VIRTIO_MMIO_CONFIG_GENERATION) != before
    assert board.read(0x100) == 43 << 16 | 132


def test_the_configuration_can_be_read_in_any_width_and_is_0_past_its_end(board: Board) -> None:
    assert [board.read(0x100, 2), board.read(0x102, 2), board.read(0x104, 4)] == [80, 25, 2]
    assert board.read(0x104, 1) == 2
    assert board.read(0x100, 8) == 2 << 32 | 25 << 16 | 80
    for offset in range(0x10C, 0x200):
        assert board.read(offset, 1) == 0
    assert board.read(0x10A, 8) == 0
    assert board.read(0x1F8, 8) == 0


def test_writes_to_the_configuration_change_nothing(board: Board, sink: Collector) -> None:
    before = [board.read(offset, 1) for offset in range(0x100, 0x200)]
    for offset in range(0x100, 0x200):
        if offset != 0x108:
            board.write(offset, 0xFF, 1)
    board.write(0x108, 0xFFFF_FFFF_FFFF_FFFF, 8)
    assert [board.read(offset, 1) for offset in range(0x100, 0x200)] == before
    assert not sink.data
