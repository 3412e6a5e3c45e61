"""Compiles check.cpp with the kernels, boots it as the first process of Linux in Bochs, prints what it says.

Exit status 0: every check passed, and AMX was among them. Takes some ten minutes; nothing is installed.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tandem_runtime.native.build import OPS

HERE: Final = Path(__file__).parent
KERNEL_LINE: Final = "console=ttyS0 panic=-1 quiet no5lvl acpi=off nogbpages mitigations=off tsc=reliable lpj=1000000"
"""Bochs cannot return from system management mode with five levels of page tables; no delays are to be calibrated."""
BOOT_SECONDS: Final = 1800
MACHINE: Final = """\
config_interface: textconfig
display_library: nogui
cpu: model=sapphire_rapids, count=1, ips=200000000
memory: guest=512, host=512
romimage: file={bios}
vgaromimage: file={vga}
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path={disc}, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev={serial}
log: {log}
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
clock: sync=none
"""


def compile_check(target: Path) -> None:
    """One static program of check.cpp and the kernels, with the flags of the shared library."""
    sources = (*sorted(OPS.source.glob("*.cpp")), HERE / "check.cpp")
    subprocess.run(("g++", *OPS.flags, "-static", "-pthread", *map(str, sources), "-o", str(target)), check=True)


def archive(name: str, content: bytes) -> bytes:
    """An initial file system (cpio, new ASCII form) of one executable file."""
    entries = b""
    for number, (entry, mode, data) in enumerate(((name, 0o100755, content), ("TRAILER!!!", 0, b""))):
        fields = (number + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(entry) + 1, 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields) + entry.encode() + b"\0"
        entries += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return entries


def make_disc(disc: Path, folder: Path, program: Path, options: argparse.Namespace) -> None:
    """A disc that boots the kernel with the program."""
    boot = folder / "disc" / "isolinux"
    boot.mkdir(parents=True)
    for path in (options.isolinux, options.ldlinux):
        (boot / path.name).write_bytes(path.read_bytes())
    (boot / "linux").write_bytes(options.kernel.read_bytes())
    (boot / "initrd.gz").write_bytes(gzip.compress(archive("init", program.read_bytes())))
    entry = f"default a\nprompt 0\ntimeout 1\nlabel a\n kernel linux\n append initrd=initrd.gz {KERNEL_LINE}\n"
    (boot / "isolinux.cfg").write_text(entry)
    command = ("xorriso", "-as", "mkisofs", "-quiet", "-o", str(disc), "-b", f"isolinux/{options.isolinux.name}")
    loading = ("-c", "isolinux/boot.cat", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table")
    subprocess.run((*command, *loading, str(boot.parent)), check=True)


def run(folder: Path, disc: Path, options: argparse.Namespace) -> str:
    """What the machine wrote to its serial port until it was switched off. Raises TimeoutExpired."""
    serial, settings = folder / "serial", folder / "bochsrc"
    paths = {"bios": options.bios, "vga": options.vga, "disc": disc, "serial": serial, "log": folder / "log"}
    settings.write_text(MACHINE.format(**paths))
    command = (str(options.bochs), "-q", "-f", str(settings))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as machine:
        try:
            # Without ACPI nothing switches the machine off: it halts.
            for _ in range(BOOT_SECONDS):
                said = serial.read_text(errors="replace") if serial.exists() else ""
                if machine.poll() is not None or " failed\n" in said.replace("\r", ""):
                    return said
                try:
                    machine.wait(1)
                except subprocess.TimeoutExpired:
                    continue
            raise subprocess.TimeoutExpired(command, BOOT_SECONDS, said)
        finally:
            machine.kill()


def main() -> int:
    """Every option names a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    meanings = {
        "bochs": "made by tests.emulated_cpu.bochs",
        "bios": "BIOS-bochs-latest (Debian: bochsbios)",
        "vga": "vgabios.bin (vgabios)",
        "kernel": "vmlinuz of Linux 5.16 or later (linux-image-cloud-amd64)",
        "isolinux": "isolinux.bin (isolinux)",
        "ldlinux": "ldlinux.c32 for BIOS (syslinux-common)",
    }
    for name, meaning in meanings.items():
        parser.add_argument(f"--{name}", type=Path, required=True, help=meaning)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        compile_check(folder / "check")
        make_disc(folder / "boot.iso", folder, folder / "check", options)
        said = run(folder, folder / "boot.iso", options).replace("\r", "")
    print(said)
    return 0 if " 0 failed\n" in said and "PASS amx " in said else 1


if __name__ == "__main__":
    sys.exit(main())
