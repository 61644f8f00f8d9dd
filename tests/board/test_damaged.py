"""A snapshot whose state was made by somebody else is refused by a clear error, or forks into a guest that runs."""

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import structs

from pyvmm import Host
from pyvmm.devices.virtio.port import Port
from pyvmm.errors import SnapshotError
from pyvmm.kernel_guest import KernelGuest
from pyvmm.kvm import KvmError
from pyvmm.snapshot import GUEST, MANIFEST, VCPU, Snapshot, read_manifest
from tests.board.programs import MEMORY, announce, out, poke, program, repeat
from tests.board.virtio import BUFFERS, NOTIFY, QUEUE_SIZE, console_program, ring

pytestmark = pytest.mark.kvm

#: Ask every device for something, again and again.
BUSY = repeat(
    out(0x3F8, 65) + b"\x66\xba\xfd\x03\xec\x66\xba\xf8\x03\xec\x66\xba\xfa\x03\xec" + poke(NOTIFY, 0) + poke(NOTIFY, 1)
    + poke(0xFEC00000, 0x18) + b"\x8b\x43\x10" + poke(0xD0000064, 3) + b"\x8b\x43\x10"
)  # fmt: skip


@pytest.fixture(scope="module")
def saved(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A guest with its console up, buffers on both queues, and input that waits in both devices."""
    folder = tmp_path_factory.mktemp("saved")
    with KernelGuest.boot(host, program(console_program(), announce(), BUSY), memory=MEMORY) as guest:
        ring(guest, [(BUFFERS + 64 * number, 64) for number in range(QUEUE_SIZE)])
        guest.pause_when_announced()
        assert guest.run(10) is None
        guest.send(b"typed")
        guest.hvc0.send(b"sent")
        assert guest.run(0.01) is not None
        guest.save(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(host: Host, saved: Path) -> Iterator[Snapshot]:
    with Snapshot.load(saved, host.processor) as snapshot:
        yield snapshot


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each part of plain data."""
    yield path
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list | tuple) else ()
    for key, value in pairs:
        yield from places(value, (*path, key))


def replaced(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of ``data`` with ``value`` at that place."""
    if not path:
        return value
    result = copy.copy(data) if isinstance(data, dict) else list(data)
    result[path[0]] = replaced(data[path[0]], path[1:], value)
    return result


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from([0, 1, 15, 16, 255, 256, 0xFFFF, 0x10000, 1 << 32, MEMORY - 1, MEMORY]),
    st.binary(max_size=40),
    st.text(max_size=5),
    st.lists(st.integers(0, 300), max_size=3),
    st.just({}),
)


def try_out(host: Host, snapshot: Snapshot) -> None:
    """Fork it, and run the fork for a moment, if that can be done."""
    try:
        twin = KernelGuest.fork(host, snapshot)
    except (SnapshotError, KvmError):
        return
    with twin:
        assert twin.run(0.01) is not None
        twin.send(b"more")
        twin.hvc0.send(b"more")
        assert twin.run(0.01) is not None


@given(data=st.data())
@hypothesis_settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_state_of_devices_breaks_the_monitor(host, loaded, data):
    path = data.draw(st.sampled_from(list(places(loaded.guest))))
    state = replaced(loaded.guest, path, data.draw(VALUES))
    if not isinstance(state, dict):
        return
    try_out(host, Snapshot(loaded.path, loaded.manifest, loaded.memory_fd, loaded.vcpu, state))


def rewritten(saved: Path, folder: Path, name: str, data: bytes) -> Path:
    """The snapshot with another file in it, and the right checksums."""
    folder.mkdir(exist_ok=True)
    for file in saved.iterdir():
        (folder / file.name).unlink(missing_ok=True)
        (folder / file.name).hardlink_to(file)
    for file in (name, MANIFEST):
        (folder / file).unlink()
    (folder / name).write_bytes(data)
    manifest = read_manifest(saved)
    manifest = structs.replace(manifest, sha256=manifest.sha256 | {name: hashlib.sha256(data).hexdigest()})
    manifest.digest = manifest.compute_digest()
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return folder


@given(data=st.data())
@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_state_of_the_processor_breaks_the_monitor(host, saved, tmp_path, data):
    state = msgspec.msgpack.decode((saved / VCPU).read_bytes())
    path = data.draw(st.sampled_from(list(places(state))))
    changed = msgspec.msgpack.encode(replaced(state, path, data.draw(VALUES)))
    try:
        snapshot = Snapshot.load(rewritten(saved, tmp_path / "changed", VCPU, changed), host.processor)
    except SnapshotError:
        return
    with snapshot:
        try_out(host, snapshot)


@pytest.mark.parametrize("name", [VCPU, GUEST])
@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xc0", b"\x90", b"\x80", b"\x91" * 5000, b"\xdf\xff\xff\xff\xff"])
def test_a_file_that_is_no_state_is_refused(host, saved, tmp_path, name, data):
    folder = rewritten(saved, tmp_path / "changed", name, data)
    with pytest.raises(SnapshotError), Snapshot.load(folder, host.processor) as snapshot:
        KernelGuest.fork(host, snapshot)


def lost(path: tuple[Any, ...]) -> Any:
    return lambda state: replaced(state, path[:-1], {key: value for key, value in _at(state, path[:-1]).items()
                                                     if key != path[-1]})  # fmt: skip


def _at(state: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        state = state[key]
    return state


SENSELESS = {
    "no board": lost(("board",)),
    "no serial port": lost(("board", "serial")),
    "a serial port without a register": lost(("board", "serial", "ier")),
    "no console": lambda state: replaced(state, ("board", "virtio"), []),
    "another console": lambda state: replaced(state, ("board", "virtio"), state["board"]["virtio"] * 2),
    "an I/O APIC with few lines": lambda state: replaced(state, ("board", "ioapic", "redirection"), [0] * 23),
    "rings outside memory": lambda state: replaced(state, ("board", "virtio", 0, 1, "queues", 0, "desc"), MEMORY),
    "a queue too many": lambda state: replaced(
        state, ("board", "virtio", 0, 1, "queues"), state["board"]["virtio"][0][1]["queues"] * 2
    ),
    "work on no queue": lambda state: replaced(state, ("board", "virtio", 0, 1, "unfinished"), [9]),
    "a message about no port": lambda state: replaced(state, ("board", "virtio", 0, 0, "messages"), [[7, 0]]),
    "a negative register": lambda state: replaced(state, ("board", "serial", "lcr"), -1),
    "a text for a number": lambda state: replaced(state, ("board", "serial", "lcr"), "3"),
}


@pytest.mark.parametrize("change", SENSELESS.values(), ids=SENSELESS)
def test_a_state_of_devices_that_makes_no_sense_is_refused(host, loaded, change):
    changed = Snapshot(loaded.path, loaded.manifest, loaded.memory_fd, loaded.vcpu, change(loaded.guest))
    with pytest.raises(SnapshotError, match="the state of its devices makes no sense"):
        KernelGuest.fork(host, changed)


def test_a_snapshot_of_another_kind_of_guest_is_refused(host, loaded):
    manifest = structs.replace(loaded.manifest, kind="process")
    with pytest.raises(SnapshotError, match="not a kernel guest"):
        KernelGuest.fork(host, Snapshot(loaded.path, manifest, loaded.memory_fd, loaded.vcpu, loaded.guest))


def test_a_snapshot_of_a_guest_with_other_ports_is_refused(host, loaded):
    with pytest.raises(SnapshotError, match=r"with the ports \[\], not \['agent'\]"):
        KernelGuest.fork(host, loaded, ports=[Port("agent")])


def test_nothing_is_left_of_a_fork_that_failed(host, loaded, descriptors):
    before = descriptors()
    test_a_state_of_devices_that_makes_no_sense_is_refused(host, loaded, SENSELESS["rings outside memory"])
    assert descriptors() == before
