"""Debian's packages: what can be shown without a network."""

from pathlib import Path

import pytest

from pyvmm import HostError, debian
from pyvmm.debian import Kernel, module_files
from pyvmm.template.cache import TemplateCache


def kernel(folder: Path, **modules: str) -> Kernel:
    """A kernel whose modules have these dependencies."""
    (folder / "kernel/x").mkdir(parents=True)
    for name, depends in modules.items():
        info = b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0retpoline=Y\0"
        (folder / f"kernel/x/{name.replace('_', '-')}.ko").write_bytes(info)
    return Kernel("6.1", "6.1-cloud", folder / "vmlinuz", folder)


def test_modules_come_after_those_that_they_depend_on(tmp_path):
    made = kernel(tmp_path, kvm_amd="ccp,kvm", kvm="irqbypass", irqbypass="", ccp="", other="")
    names = [path.stem for path in module_files(made, ["kvm_amd"])]
    assert names == ["ccp", "irqbypass", "kvm", "kvm-amd"]


def test_a_module_is_loaded_once(tmp_path):
    made = kernel(tmp_path, a="c", b="c", c="")
    assert [path.stem for path in module_files(made, ["a", "b", "a"])] == ["c", "a", "b"]


def test_a_module_that_is_not_there_is_named(tmp_path):
    with pytest.raises(HostError, match="no module kvm_amd"):
        module_files(kernel(tmp_path, kvm=""), ["kvm_amd"])


def test_without_debians_keyring_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(debian, "_KEYRING", tmp_path / "debian-archive-keyring.gpg")
    with pytest.raises(HostError, match="apt install debian-archive-keyring"):
        debian.fetch_kernel(TemplateCache(tmp_path / "cache"), lambda step: None)


def test_without_apt_it_is_said_where_it_can_be_had(tmp_path, monkeypatch):
    keyring = tmp_path / "keyring.gpg"
    keyring.touch()
    monkeypatch.setattr(debian, "_KEYRING", keyring)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match=r"apt-get is not there: .* on Debian and Ubuntu"):
        debian.fetch_kernel(TemplateCache(tmp_path / "cache"), lambda step: None)
