"""A console device with a driver that is up, for the tests of its parts."""

from tests.devices.virtio_driver import ALL, EVENT_IDX, INDIRECT, PAGE, PLAIN, Board, Collector, Driver, Port

FEATURES = [ALL, PLAIN, PLAIN | EVENT_IDX, PLAIN | INDIRECT]


class Guest:
    """A board with a console port and an agent's port, and a driver that is up."""

    def __init__(self, features: int = ALL, buffers: int = 8, size: int | None = None, **agent: object) -> None:
        self.console, self.agent = Collector(), Collector()
        self.calls: list[str] = []
        self.port = Port(
            "org.pyvmm.agent",
            self.agent,
            on_open=lambda: self.calls.append("open"),
            on_close=lambda: self.calls.append("close"),
            **agent,
        )
        self.board = Board([Port("", self.console, is_console=True), self.port])
        self.driver = Driver(self.board, features).probe(buffers, size)

    def write_all(self, data: bytes, pieces: int = 1, chunk: int = 4 * PAGE, indirect: bool = False) -> None:
        for at in range(0, len(data), chunk):
            self.driver.write(1, data[at : at + chunk], pieces, indirect)
        self.driver.interrupt()


def pattern(length: int) -> bytes:
    return bytes(range(251)) * (length // 251) + bytes(range(length % 251))
