"""Building a template whose guest is stock Linux: Debian's kernel for clouds, and the recipe's userland as its first
file system.

The guest boots to its init (``guest/linux/init``), which starts the agent and says when it waits for a program; once
the processor then sleeps, the snapshot is taken.
"""

import io
import shlex
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import zstandard

from pyvmm.agent_session import AgentSession
from pyvmm.debian import KERNEL, Kernel, fetch_kernel, fetch_package, kept_path, module_files
from pyvmm.errors import TemplateError
from pyvmm.host import Host
from pyvmm.image import Image
from pyvmm.initramfs import Archive
from pyvmm.kernel_guest import KernelGuest
from pyvmm.linux.output import OutputStream
from pyvmm.template.cache import TemplateCache
from pyvmm.template.recipe import Recipe
from pyvmm.template.userland import ImageInfo

__all__ = ["build_linux", "linux_identity", "package_files"]

#: Rises when the same recipe begins to give another guest; part of a template's key.
LINUX_FORMAT = 1
#: No console but the serial one, which ends up in error messages; a panic resets at once, which ends the guest; no bus
#: is looked for that is not there. The guest's kernel has nobody to protect but its one program, so it need not work
#: round its processor.
COMMAND_LINE = "console=ttyS0 quiet panic=-1 pci=off tsc=reliable mitigations=off 8250.nr_uarts=1 reboot=a"
_MODULES = ("virtio_mmio", "virtio_console")
_BUSYBOX = "busybox-static"
_LIBRARY = "/usr/lib/pyvmm"
#: Bytes for the kernel and for what init needs, besides the files in memory and the program's share.
_KERNEL_SHARE = 96 << 20
_BOOT_SECONDS = 600.0
#: Seconds that the guest is given to come to rest when all is warm.
_REST_SECONDS = 1.0
#: zstd's window must be one that the kernel's decompressor takes.
_COMPRESSION_LEVEL = 3


def linux_identity() -> dict[str, object]:
    """What a template of this kind depends on besides its recipe."""
    return {"linux": LINUX_FORMAT, **{name: _own(name) for name in ("init", "refresh.elf")}}


def build_linux(
    folder: Path,
    recipe: Recipe,
    command: list[str],
    info: ImageInfo,
    host: Host,
    cache: TemplateCache,
    progress: Callable[[str], None],
    facts: dict[str, object],
) -> None:
    """Boot the image in ``folder`` and leave the snapshot there; ``command`` starts the agent.

    :raises HostError: Debian's packages cannot be fetched, or KVM refuses.
    :raises TemplateError: the guest did not come up; the message says what its console said.
    """
    kernel, busybox = _packages(cache, progress)
    progress("writing the initramfs")
    with Image.open(folder, verify=False) as image:
        initramfs = _initramfs(image, kernel, busybox, command, recipe.env)
    memory = ((recipe.memory_mb << 20) + info.size + _KERNEL_SHARE) & -(2 << 20)
    progress(f"booting Linux {kernel.release}, warming up {len(recipe.warm)} modules")
    began = time.monotonic()
    streams = OutputStream(1 << 20), OutputStream(1 << 20)
    session = AgentSession(streams, lambda: guest.board.pause())
    guest = KernelGuest.boot(
        host,
        kernel.bzimage.read_bytes(),
        memory=memory,
        command_line=COMMAND_LINE,
        initramfs=initramfs,
        ports=session.ports,
    )
    with guest:
        ending = guest.run(_BOOT_SECONDS)
        if not session.frozen:
            why = session.failure or (f"{ending.how.value} {ending.message}" if ending else "it said nothing")
            raise TemplateError(
                f"the guest of template {recipe.name!r} was not ready ({why.strip()}). Its console said:\n"
                + guest.record.last_words(4000)
            )
        guest.run(_REST_SECONDS)
        progress("writing the snapshot")
        guest.save(
            folder,
            {
                **facts,
                "kernel": kernel.version,
                "boot_seconds": round(time.monotonic() - began, 2),
                "boot_exits": guest.board.exits,
            },
        )


def package_files(cache: TemplateCache, progress: Callable[[str], None]) -> list[Path]:
    """The files in the cache that a template takes from Debian's packages, fetched if need be: for who wants to build
    one where there is no network.
    """
    kernel, busybox = _packages(cache, progress)
    kept = [kept_path(name, cache) for name in (KERNEL, _BUSYBOX)]
    return [kernel.bzimage, busybox, *module_files(kernel, _MODULES), *kept]


def _packages(cache: TemplateCache, progress: Callable[[str], None]) -> tuple[Kernel, Path]:
    """The kernel, and a shell that needs no libraries."""
    _, folder = fetch_package(_BUSYBOX, cache, progress)
    return fetch_kernel(cache, progress), folder / "bin/busybox"


def _initramfs(image: Image, kernel: Kernel, busybox: Path, command: list[str], env: dict[str, str]) -> bytes:
    """The recipe's userland and what init needs, compressed."""
    archive = Archive()
    archive.add_image(image)
    archive.add_device("/dev/console", 5, 1)
    archive.add_file("/init", _own("init"), 0o755)
    archive.add_file(f"{_LIBRARY}/refresh", _own("refresh.elf"), 0o755)
    archive.add_file(f"{_LIBRARY}/busybox", busybox, 0o755)
    archive.add_file(f"{_LIBRARY}/start", _start(command, env).encode())
    modules = module_files(kernel, _MODULES)
    for module in modules:
        archive.add_file(f"{_LIBRARY}/{module.name}", module)
    archive.add_file(f"{_LIBRARY}/modules", "".join(f"{module.name}\n" for module in modules).encode())
    plain = io.BytesIO()
    archive.write(plain)
    return zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(plain.getbuffer())


def _own(name: str) -> bytes:
    """A file of pyvmm's that goes into the guest."""
    return resources.files("pyvmm.guest").joinpath("linux", name).read_bytes()


def _start(command: list[str], env: dict[str, str]) -> str:
    """The line of shell by which init becomes the agent, as the user."""
    program, *arguments = command
    # su takes any program for a shell, and gives it the arguments as they are.
    words = [f"{_LIBRARY}/busybox", "env", "-i", *(f"{name}={value}" for name, value in env.items())]
    words += [f"{_LIBRARY}/busybox", "su", "-m", "-s", program, "user", *arguments]
    return "exec " + shlex.join(words) + "\n"
