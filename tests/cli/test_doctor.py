"""``pyvmm doctor``: its facts, its advice and its exit code."""

import errno
import json
import os
from pathlib import Path

import pytest

import pyvmm.doctor
from pyvmm.doctor import diagnose, kvm_kind, usable
from pyvmm.kvm import KvmError
from pyvmm.template.cache import TemplateCache

from .conftest import Invoker


def test_without_the_device(invoke: Invoker, tmp_path: Path) -> None:
    answer = invoke("doctor", "--device", str(tmp_path / "kvm"))
    assert answer.exit_code == 1
    lines = answer.stdout.splitlines()
    assert lines[0] == "kvm"
    assert lines[1].split()[:2] == ["FAIL", "device"]
    assert "modprobe" in lines[2]
    assert "cannot run guests" in lines[-1]


def test_without_the_permission(invoke: Invoker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise KvmError("open", errno.EACCES, path)

    monkeypatch.setattr(pyvmm.doctor, "Kvm", refuse)
    answer = invoke("doctor")
    assert answer.exit_code == 1
    assert "add the user to the group" in answer.stdout


def test_another_device(invoke: Invoker) -> None:
    answer = invoke("doctor", "--device", "/dev/null")
    assert answer.exit_code == 1
    assert "not the KVM device" in answer.stdout


def test_every_problem_has_advice(tmp_path: Path) -> None:
    for device in ("/dev/kvm", "/dev/null", str(tmp_path / "kvm")):
        for finding in diagnose(device, TemplateCache(tmp_path / "cache")):
            assert bool(finding.advice) >= (finding.status in ("warn", "fail")), finding
            assert finding.status in ("ok", "info", "warn", "fail")
            assert finding.value


def test_json(invoke: Invoker) -> None:
    answer = invoke("doctor", "--json", "--device", "/dev/null")
    report = json.loads(answer.stdout)
    assert report["usable"] is False
    groups = {finding["group"] for finding in report["findings"]}
    assert groups == {"kvm", "limits", "memory", "host", "python", "templates"}


def test_templates_are_listed(tmp_path: Path) -> None:
    cache = TemplateCache(tmp_path)
    with cache.build("demo", "0123456789abcdef"):
        pass
    found = [finding for finding in diagnose("/dev/null", cache) if finding.name == "demo"]
    assert [finding.value.split(",")[0] for finding in found] == ["0123456789ab"]


@pytest.mark.kvm
@pytest.mark.skipif(not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="no usable /dev/kvm")
def test_on_this_host(invoke: Invoker) -> None:
    findings = {finding.name: finding for finding in diagnose()}
    assert usable(list(findings.values()))
    assert findings["KVM_CAP_SYNC_REGS"].status == "ok"
    assert findings["create a VM"].status == "ok"
    assert kvm_kind() in findings["kind"].value
    assert invoke("doctor").exit_code == 0
