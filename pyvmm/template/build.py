"""Building a template: image, boot, warm-up, a rehearsal, and the snapshot.

The program is booted and warmed up once. The state it is then frozen in is snapshotted twice: the first snapshot is
forked to rehearse a run, which shows what every run touches; the second has those pages ready and side by side.
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec

from pyvmm.errors import TemplateError
from pyvmm.host import Host
from pyvmm.image import Image
from pyvmm.kvm import KvmSregs
from pyvmm.linux import boot, compact
from pyvmm.linux.abi.mman import PROT_READ
from pyvmm.linux.cpu import initial_xsave
from pyvmm.linux.errors import GuestError
from pyvmm.linux.files.control import install_control
from pyvmm.linux.kernel import Kernel
from pyvmm.linux.limits import Limits
from pyvmm.machine import Machine
from pyvmm.memory import GuestMemory
from pyvmm.program import HOME
from pyvmm.sandbox import Sandbox, Template
from pyvmm.snapshot import FORMAT_VERSION, MEMORY, Snapshot, write
from pyvmm.template.cache import TemplateCache, content_key
from pyvmm.template.interpreter import find_interpreter, interpreter_identity
from pyvmm.template.linux import build_linux, linux_identity
from pyvmm.template.recipe import GuestKind, Recipe, load_recipe
from pyvmm.template.tools import tools_identity
from pyvmm.template.userland import IMAGE_FORMAT, ImageInfo, build_image
from pyvmm.vcpu_state import VcpuState

AGENT_FOLDER = "/usr/local/lib/pyvmm"
#: Rises when a template built by an older personality would not go on under this one.
PERSONALITY_VERSION = 5
_WARM_UP_SECONDS = 120.0
_FIRST_SLOT = 128 << 20


def template_key(recipe: Recipe, processor: str) -> str:
    """The cache key of a recipe on this host: what the template's contents depend on."""
    own = linux_identity() if recipe.guest == "linux" else {"personality": PERSONALITY_VERSION}
    return content_key(
        {
            **own,
            "recipe": recipe.encode(),
            "interpreter": interpreter_identity(),
            "tools": tools_identity(recipe.all_tools),
            "agent": recipe.runtime.agent_source(),
            "snapshot": FORMAT_VERSION,
            "image": IMAGE_FORMAT,
            "processor": processor,
        }
    )


def build(
    recipe_name: str | Path,
    progress: Callable[[str], None],
    *,
    guest: GuestKind | None = None,
    host: Host | None = None,
    cache: TemplateCache | None = None,
    replace: bool = False,
    upgrade: bool = False,
) -> Path:
    """Build the template of a recipe, unless the cache has it; the template's folder.

    :param guest: what the programs run on, instead of what the recipe says.
    :param replace: build it even if it is there.
    :param upgrade: ask the package index for newer packages.
    :raises RecipeError: the recipe is wrong.
    :raises HostError: this host lacks something that the guest needs.
    :raises TemplateError: a step failed; nothing that looks finished is left behind.
    """
    recipe = load_recipe(recipe_name, guest)
    cache = cache or TemplateCache()
    with nullcontext(host) if host is not None else Host() as host:
        if recipe.guest == "linux":
            host.require_hardware(f"the template {recipe.name}, whose guest is stock Linux,")
        key = template_key(recipe, host.processor)
        found = cache.find(recipe.name, key)
        if found is not None and not replace and not upgrade:
            return found.path
        with cache.build(recipe.name, key, replace=replace or upgrade, waiting=progress) as folder:
            if folder is not None:
                _build_into(folder, recipe, host, cache, progress, upgrade)
        return cache.entry_path(recipe.name, key)


def _build_into(
    folder: Path, recipe: Recipe, host: Host, cache: TemplateCache, progress: Callable[[str], None], upgrade: bool
) -> None:
    began = time.monotonic()
    agent = {_agent_path(recipe): recipe.runtime.agent_source()}
    info = build_image(recipe, folder, progress, cache, upgrade, extra_files=agent)
    if recipe.guest == "linux":
        build_linux(folder, recipe, _command(recipe), info, host, cache, progress, _facts(recipe, info))
        return
    with Image.open(folder, verify=False) as image:
        progress(f"booting, warming up {len(recipe.warm)} modules")
        machine, kernel, streams = _boot(recipe, image, host)
        with machine:
            warmed_in = _warm_up(machine, kernel, streams, recipe)
            facts = _facts(recipe, info)
            facts |= {"tsc_khz": machine.vcpu.get_tsc_khz(), "warm_up_seconds": round(warmed_in, 2)}
            vcpu = _frozen_vcpu(machine, kernel)
            progress("rehearsing a run")
            hot = _rehearse(folder, image, machine, kernel, vcpu, facts, host, recipe.runtime.rehearsal)
            facts["built_in_seconds"] = round(time.monotonic() - began, 2)
            progress("writing the snapshot")
            _write(folder, machine, kernel, vcpu, facts, host, hot)


def _agent_path(recipe: Recipe) -> str:
    """The agent in the guest."""
    return f"{AGENT_FOLDER}/{Path(recipe.runtime.agent).name}"


def _command(recipe: Recipe) -> list[str]:
    """What the template runs."""
    values = {
        "{agent}": _agent_path(recipe),
        "{script}": f"{HOME}/{recipe.runtime.script}",
        "{random}": str(1 + secrets.randbelow((1 << 31) - 1)),
    }
    command = [*recipe.runtime.command]
    for placeholder, value in values.items():
        command = [part.replace(placeholder, value) for part in command]
    return [*command, *recipe.warm]


def _boot(recipe: Recipe, image: Image, host: Host) -> tuple[Machine, Kernel, boot.Streams]:
    """A machine whose program stands before its first instruction."""
    limits = Limits(memory_bytes=recipe.memory_mb << 20)
    memory = GuestMemory(limits.memory_bytes, min(_FIRST_SLOT, limits.memory_bytes))
    machine = Machine(host, memory)
    try:
        streams = boot.Streams(limits.output_bytes)
        facts = boot.ProcessorFacts(
            machine.vcpu.get_tsc_khz(), host.hwcap, machine.vcpu.xsave_size, host.xcr0, host.cpuinfo
        )
        argv = _command(recipe)
        envp = [f"{name}={value}" for name, value in recipe.env.items()]
        kernel = boot.boot(
            memory,
            machine.vcpu.run_page,
            image,
            [os.fsencode(argument) for argument in argv],
            [os.fsencode(variable) for variable in envp],
            os.fsencode(HOME),
            limits,
            facts,
            streams,
        )
        install_control(kernel)
        kernel.attach(machine.vcpu, machine)
        sregs = boot.initial_sregs(machine.vcpu.get_sregs(), kernel.task.mm.table.root)
        xsave = initial_xsave(machine.vcpu.xsave_size)
        machine.restore_vcpu(VcpuState(kernel.cpu.general_registers(), bytes(sregs), xsave, boot.MSRS))
    except GuestError as error:
        machine.close()
        raise TemplateError(f"{recipe.runtime.command[0]} cannot be started in the image: {error}") from error
    except BaseException:
        machine.close()
        raise
    return machine, kernel, streams


def _warm_up(machine: Machine, kernel: Kernel, streams: boot.Streams, recipe: Recipe) -> float:
    """Run until the agent waits for a program; how long that took, in seconds."""
    began = time.monotonic()
    ended = machine.run(kernel, time.monotonic_ns() + int(_WARM_UP_SECONDS * 1e9))
    if not kernel.frozen:
        said = (streams.stdout.value() + streams.stderr.value())[-4000:].decode("utf-8", "replace")
        how = f"ended ({kernel.ended})" if ended else f"was not ready after {_WARM_UP_SECONDS:g} s"
        raise TemplateError(f"the program of template {recipe.name!r} {how} while warming up. It said:\n{said}")
    return time.monotonic() - began


def _frozen_vcpu(machine: Machine, kernel: Kernel) -> VcpuState:
    """The processor's state, as a fork is to begin: the program's own registers, in ring 3."""
    state = machine.save_vcpu(tuple(boot.MSRS))
    sregs = boot.initial_sregs(KvmSregs.from_buffer_copy(state.sregs), kernel.task.mm.table.root)
    sregs.fs.base, sregs.gs.base = kernel.cpu.fs_base, kernel.cpu.gs_base
    return VcpuState(kernel.cpu.general_registers(), bytes(sregs), state.xsave, state.msrs)


def _rehearse(
    folder: Path,
    image: Image,
    machine: Machine,
    kernel: Kernel,
    vcpu: VcpuState,
    facts: dict[str, Any],
    host: Host,
    program: str,
) -> set[int]:
    """Fork what is frozen, run a little program, and see which pages that touched; ``kernel`` then has all of them."""
    rehearsal = folder / "rehearsal"
    rehearsal.mkdir()
    try:
        _write(rehearsal, machine, kernel, vcpu, facts, host, set(), accesses_seen=True)
        with Snapshot.load(rehearsal, host.processor) as snapshot, Template(host, snapshot, image).fork() as fork:
            assert isinstance(fork, Sandbox)
            mm = fork.kernel.task.mm
            mm.users += 1  # it is looked at when the program has ended
            result = fork.run(program)
            if result.stdout != b"2\n" or result.status != "ok":
                raise TemplateError(f"the rehearsal in a fork of the new template failed: {result}")
            before = (rehearsal / MEMORY).read_bytes()
            hot = compact.touched(mm, fork.machine.memory, memoryview(before))
    finally:
        shutil.rmtree(rehearsal)
    mm = kernel.task.mm
    for address in hot:
        vma = mm.find(address)
        # What the fork mapped beyond the template (a heap that grew), or made accessible, is not so in the template.
        if vma is not None and vma.prot & PROT_READ and not mm.table.lookup(address):
            mm.fault(address, False)
    return compact.widen(mm, hot)


def _write(
    folder: Path,
    machine: Machine,
    kernel: Kernel,
    vcpu: VcpuState,
    facts: dict[str, Any],
    host: Host,
    hot: set[int],
    *,
    accesses_seen: bool = False,
) -> None:
    mm = kernel.task.mm
    try:
        frozen = boot.freeze(kernel)
    except ValueError as error:
        raise TemplateError(f"template {facts['name']!r} cannot be frozen as it is: {error}") from error
    packed = compact.pack(mm, machine.memory, hot, accesses_seen=accesses_seen)
    try:
        sregs = KvmSregs.from_buffer_copy(vcpu.sregs)
        sregs.cr3 = packed.root
        write(
            folder,
            kind="process",
            processor=host.processor,
            memory_limit=machine.memory.limit,
            memory=packed.memory.view[: packed.size],
            hot_size=packed.hot_size,
            vcpu=VcpuState(vcpu.regs, bytes(sregs), vcpu.xsave, vcpu.msrs),
            guest=compact.state_after(frozen, packed),
            facts=facts,
        )
    finally:
        packed.memory.close()


def _facts(recipe: Recipe, info: ImageInfo) -> dict[str, Any]:
    """What the manifest remembers of the build."""
    return {
        "name": recipe.name,
        "description": recipe.description,
        "recipe": msgspec.to_builtins(recipe),
        "language": recipe.runtime.language,
        "script": recipe.runtime.script,
        **({"python_version": find_interpreter().version} if recipe.runtime.python else {}),
        "packages": {package.name: package.version for package in info.packages},
        "image_files": info.inodes,
        "image_bytes": info.size,
        "image_sha256": info.digest,
    }
