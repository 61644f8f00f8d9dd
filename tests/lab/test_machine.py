"""Starting the emulated host, and what comes back of it; the lab itself is run by ``make lab``."""

import io
import tarfile

import pytest

from pyvmm import HostError
from pyvmm.lab import machine


def archive(**files: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w|") as made:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.replace("_", "/", 1))
            entry.size = len(text)
            made.addfile(entry, io.BytesIO(text.encode()))
    return stream.getvalue()


def test_without_qemu_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="apt install qemu-system-x86"):
        machine.find_qemu()


def test_status_and_report_come_back(tmp_path):
    (tmp_path / "results").write_bytes(archive(status="3", **{"results_report.xml": "<testsuites/>"}))
    results = machine.read_results(tmp_path / "results", b"")
    assert (results.status, results.report) == (3, b"<testsuites/>")


@pytest.mark.parametrize("data", [b"", b"garbage" * 100, archive(status="0")[:300]])
def test_without_whole_results_the_console_is_shown(tmp_path, data):
    (tmp_path / "results").write_bytes(data)
    with pytest.raises(HostError, match="Kernel panic"):
        machine.read_results(tmp_path / "results", b"Kernel panic")


def test_the_console_is_passed_on_and_its_end_is_kept(tmp_path):
    shown = bytearray()
    with (tmp_path / "complaints").open("wb") as complaints:
        said = machine.watch(["/bin/sh", "-c", "seq 100"], shown.extend, complaints, 60)
    assert shown.splitlines() == [b"%d" % n for n in range(1, 101)]
    assert said == shown


def test_an_emulated_host_that_takes_too_long_is_ended(tmp_path):
    with (tmp_path / "complaints").open("wb") as complaints:
        assert not machine.watch(["/bin/sleep", "100"], lambda data: None, complaints, 0.1)


def test_an_emulated_host_that_says_nothing_is_stuck(tmp_path):
    with (tmp_path / "complaints").open("wb") as complaints, pytest.raises(machine.Stuck, match="said nothing"):
        machine.watch(["/bin/sleep", "100"], lambda data: None, complaints, 60, 0.1)


def test_a_host_that_was_stuck_is_started_anew(monkeypatch):
    outcomes = [machine.Stuck("stuck"), machine.Stuck("stuck"), machine.Results(0, {})]
    shown = bytearray()

    def run(*_, **__):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(machine, "_run", run)
    assert machine.test(None, [], shown.extend, seconds=60, colour=False).status == 0
    assert shown.count(b"starting another one") == 2
