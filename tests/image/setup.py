# SPDX-License-Identifier: Apache-2.0
"""An installation medium of our own, in the place of Windows': a program of one sector of a CD that does to a machine
what Setup does. It looks at the drives, partitions the disk, restarts into that, and the disk ends it switched off."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Literal

Manner = Literal["whole", "hangs", "fails", "early"]
COMPONENTS = "9.9.9+0123abcd"

_SAY = """
say:    lodsb
        test al, al
        jz 2f
        call put
        jmp say
put:    mov ah, al
        mov dx, 0x3fd
1:      in al, dx
        test al, 0x20
        jz 1b
        mov al, ah
        mov dx, 0x3f8
        out dx, al
2:      ret
move:   # sector(s) at si, as the packet says: ah 0x42 reads, 0x43 writes
        xor al, al
        int 0x13
        ret
off:    mov dx, 0x604   # the chipset's power switch, where the firmware of QEMU puts it
        mov ax, 0x2000
        out dx, ax
3:      hlt
        jmp 3b
"""

_BEGIN = """
        .intel_syntax noprefix
        .code16
        .org 0
        xor ax, ax
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov sp, 0x7c00
"""

_DISK = f"""{_BEGIN}        mov si, offset booted
        cmp byte ptr [done], 0
        jne last
        mov byte ptr [done], 1
        mov si, offset packet
        mov dl, 0x80
        mov ah, 0x43
        call move
        mov si, offset stages
        call say
        call off
last:   call say
        call off
{_SAY}
packet: .word 16, 1, 0x7c00, 0
        .quad 0
done:   .byte 0
stages: .ascii "\\r\\nvmrole: stage configuring\\r\\nvmrole: stage installing-components\\r\\n"
        .ascii "vmrole: components {COMPONENTS}\\r\\n"
        .asciz "vmrole: stage generalizing\\r\\n"
booted: .asciz "\\r\\nvmrole: stage booting\\r\\nvmrole: failed this disk was installed by a test\\r\\n"
        .org 446
        .byte 0x80, 0, 0, 0, 7, 0, 0, 0
        .long 2048, 2048
        .org 510
        .byte 0x55, 0xaa
"""

_MEDIUM = f"""{_BEGIN}        mov si, offset begun
        call say
        .if MANNER == 2
        mov si, offset failed
        call say
        call off
        .endif
        .if MANNER == 3
        call off
        .endif
        mov si, offset media
        call say
        mov bl, 0xe0    # the drives, as the firmware numbers them: the volume's name is in its 17th sector
drive:  mov si, offset packet
        mov dl, bl
        mov ah, 0x42
        call move
        jc next
        mov byte ptr [0x9027], ' '
        mov byte ptr [0x9048], 0
        mov si, 0x9027
        call say
next:   inc bl
        cmp bl, 0xe3
        jne drive
        mov si, offset newline
        call say
        .if MANNER == 1
4:      hlt
        jmp 4b
        .endif
        mov si, offset mbr
        mov dl, 0x80
        mov ah, 0x43
        call move
        mov si, offset part
        mov dl, 0x80
        mov ah, 0x43
        call move
        mov al, 0xfe    # the keyboard's controller can reset the machine
        out 0x64, al
5:      hlt
        jmp 5b
{_SAY}
begun:  .asciz "\\r\\nvmrole: stage setup\\r\\n"
failed: .asciz "vmrole: failed there is no such edition\\r\\n"
media:  .asciz "media in the drives:"
newline: .asciz "\\r\\n"
        .balign 4
packet: .word 16, 1, 0x9000, 0
        .quad 16
mbr:    .word 16, 1, disk, 0
        .quad 0
part:   .word 16, 1, ntfs, 0
        .quad 2048
        .org 1024
disk:   .incbin "disk.bin"
ntfs:   .ascii "\\353RxNTFS    "
        .org 2048
"""


def medium(folder: Path, manner: Manner = "whole") -> Path:
    """The ISO, in ``folder``: a program that goes through with it, or does not."""
    folder.mkdir(exist_ok=True)
    which = ["whole", "hangs", "fails", "early"].index(manner)
    _assemble(folder, "disk", _DISK, which)
    _assemble(folder, "boot", _MEDIUM, which)
    content = folder / "content"
    content.mkdir()
    (folder / "boot.bin").rename(content / "boot.bin")
    target = folder / f"{manner}.iso"
    argv = ["xorriso", "-as", "mkisofs", "-quiet", "-V", "OUR-MEDIUM", "-b", "boot.bin", "-no-emul-boot"]
    subprocess.run([*argv, "-boot-load-size", "4", "-o", str(target), str(content)], check=True, capture_output=True)
    return target


def _assemble(folder: Path, name: str, text: str, manner: int) -> None:
    source, made, program = (folder / f"{name}.{suffix}" for suffix in ("s", "o", "bin"))
    source.write_text(text)
    argv = ["as", "--32", f"-I{folder}", "--defsym", f"MANNER={manner}", "-o", str(made), str(source)]
    subprocess.run(argv, check=True)
    argv = ["ld", "-m", "elf_i386", "-Ttext=0x7c00", "--oformat=binary", "-e0", "-o", str(program), str(made)]
    subprocess.run(argv, check=True)
