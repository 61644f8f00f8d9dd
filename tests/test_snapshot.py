"""Snapshots on disk: what was written is read, and nothing else is believed."""

import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest

from pyvmm import SnapshotError, Template
from pyvmm.snapshot import GUEST, MANIFEST, MEMORY, VCPU, Manifest, Snapshot, read_manifest

pytestmark = pytest.mark.kvm

_FILES = (MEMORY, VCPU, GUEST)


@pytest.fixture
def folder(template: Template, tmp_path: Path) -> Path:
    """A copy of the template's snapshot, to be damaged."""
    copy = tmp_path / "snapshot"
    copy.mkdir()
    for name in (MANIFEST, *_FILES):
        shutil.copy(template.snapshot.path / name, copy / name)
    return copy


def load(folder: Path, template: Template) -> Snapshot:
    return Snapshot.load(folder, template.host.processor)


def refused(folder: Path, template: Template) -> str:
    """The one clear error that loading gives: one line that names the folder."""
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SnapshotError) as caught:
        load(folder, template)
    message = str(caught.value)
    assert str(folder) in message and "\n" not in message
    assert len(os.listdir("/proc/self/fd")) == descriptors
    return message


def change_manifest(folder: Path, **changes: object) -> None:
    """Change the manifest as somebody would who knows how its checksum is made, as far as it still makes sense."""
    manifest = json.loads((folder / MANIFEST).read_bytes()) | changes
    try:
        manifest["digest"] = msgspec.convert(manifest, Manifest).compute_digest()
    except msgspec.ValidationError:
        pass
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_a_manifest_whose_numbers_were_changed_is_noticed(folder: Path, template: Template) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"memory_limit": manifest["memory_limit"] * 2}))
    assert "checksum" in refused(folder, template)


def test_a_good_copy_is_loaded_and_holds_the_same_memory(folder: Path, template: Template) -> None:
    with load(folder, template) as snapshot:
        size = snapshot.manifest.memory_size
        assert os.pread(snapshot.memory_fd, size, 0) == (folder / MEMORY).read_bytes()
        assert snapshot.vcpu.registers == template.snapshot.vcpu.registers


def test_memory_is_written_sparsely(template: Template) -> None:
    status = (template.snapshot.path / MEMORY).stat()
    assert status.st_size == template.snapshot.manifest.memory_size
    assert status.st_blocks * 512 <= status.st_size + (1 << 20)


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_one_byte_flipped_is_noticed(folder: Path, template: Template, name: str, where: str) -> None:
    size = (folder / name).stat().st_size
    position = {"first": 0, "middle": size // 2, "last": size - 1}[where]
    with open(folder / name, "r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 0x40]))
    assert "checksum" in refused(folder, template)


@pytest.mark.parametrize("name", [MANIFEST, *_FILES])
@pytest.mark.parametrize("kept", [0, 1, 0.5, -1])
def test_a_file_that_was_cut_is_noticed(folder: Path, template: Template, name: str, kept: float) -> None:
    size = (folder / name).stat().st_size
    os.truncate(folder / name, size + int(kept) if kept < 0 else int(size * kept) if isinstance(kept, float) else kept)
    refused(folder, template)


@pytest.mark.parametrize("name", _FILES)
def test_a_file_that_was_extended_is_noticed(folder: Path, template: Template, name: str) -> None:
    with open(folder / name, "ab") as file:
        file.write(b"\0" * 4096)
    refused(folder, template)


@pytest.mark.parametrize("name", [MANIFEST, *_FILES])
def test_a_file_that_is_missing_is_named(folder: Path, template: Template, name: str) -> None:
    (folder / name).unlink()
    assert name in refused(folder, template)


@pytest.mark.parametrize("name", [MANIFEST, *_FILES])
def test_a_folder_in_a_files_place_is_an_error(folder: Path, template: Template, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    refused(folder, template)


@pytest.mark.parametrize("version", [0, 1, 10**30, "2", None, [], 2.5])
def test_another_format_version_is_refused_by_name(folder: Path, template: Template, version: object) -> None:
    change_manifest(folder, format_version=version)
    assert "format" in refused(folder, template)


def test_another_processor_is_refused_and_both_are_named(folder: Path, template: Template) -> None:
    with pytest.raises(SnapshotError, match=r"another processor .*GenuineIntel") as caught:
        Snapshot.load(folder, "GenuineIntel 0x6/0x1/0x1 hw 000000000000")
    assert template.host.processor in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"memory_size": 0x1001},
        {"memory_size": -4096},
        {"memory_size": 1 << 60},
        {"memory_limit": 4096},
        {"memory_limit": 1 << 62},
        {"hot_size": 1 << 40},
        {"memory_size": "big"},
        {"sha256": {}},
        {"sha256": []},
        {"kind": 5},
        {"facts": None},
    ],
    ids=str,
)
def test_a_manifest_that_makes_no_sense_is_refused(folder: Path, template: Template, changes: dict) -> None:
    change_manifest(folder, **changes)
    refused(folder, template)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b"null", b"[" * 100_000, b"\xff\xfe", b'{"format_version": 1}', b"\0" * 1000]
)
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, template: Template, data: bytes) -> None:
    (folder / MANIFEST).write_bytes(data)
    refused(folder, template)


def test_state_of_another_shape_is_refused_even_with_right_checksums(folder: Path, template: Template) -> None:
    import hashlib

    for state in ({}, [], {"regs": b"", "sregs": b"", "xsave": b"", "msrs": {}}, {"regs": 1}):
        data = msgspec.msgpack.encode(state)
        (folder / VCPU).write_bytes(data)
        manifest = read_manifest(folder)
        change_manifest(folder, sha256=manifest.sha256 | {VCPU: hashlib.sha256(data).hexdigest()})
        refused(folder, template)


def test_a_damaged_template_is_refused_before_anything_runs(folder: Path, template: Template) -> None:
    os.truncate(folder / MEMORY, 4096)
    with pytest.raises(SnapshotError):
        Template.open(folder, host=template.host)


def test_closing_twice_is_fine(folder: Path, template: Template) -> None:
    snapshot = load(folder, template)
    snapshot.close()
    snapshot.close()


def test_nothing_is_written_to_a_fork_before_it_runs(template: Template) -> None:
    """Its memory may be replaced by a copy until then."""
    size = template.snapshot.manifest.memory_size
    with template.fork() as sandbox:
        assert sandbox.machine.memory.view[:size] == os.pread(template.snapshot.memory_fd, size, 0)
