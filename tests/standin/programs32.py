# SPDX-License-Identifier: Apache-2.0
"""The smallest 32-bit programs for Windows, which no compiler is needed for, and an installer."""

from __future__ import annotations

import struct
from typing import Final

_ALIGNED: Final = 0x200
_PAGE: Final = 0x1000

INSTALLER = """\
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="3c1d3c0e-6a86-4a39-9d0c-d0a5b7fd4f01" UpgradeCode="3c1d3c0e-6a86-4a39-9d0c-d0a5b7fd4f02"
      Name="Old" Manufacturer="Old" Version="1.0.0" Language="1033">
    <Package InstallerVersion="200" Compressed="yes"/>
    <Media Id="1" Cabinet="old.cab" EmbedCab="yes"/>
    <Binary Id="Library" SourceFile="action.dll"/>
    <CustomAction Id="Act" BinaryKey="Library" DllEntry="Act" Execute="deferred" Return="check"/>
    <Directory Id="TARGETDIR" Name="SourceDir"><Directory Id="ProgramFilesFolder"><Directory Id="Old" Name="Old">
      <Component Id="Part" Guid="3c1d3c0e-6a86-4a39-9d0c-d0a5b7fd4f03"><File Id="Text" Source="old.wxs"/></Component>
    </Directory></Directory></Directory>
    <Feature Id="All" Level="1"><ComponentRef Id="Part"/></Feature>
    <InstallExecuteSequence><Custom Action="Act" Before="InstallFinalize"/></InstallExecuteSequence>
  </Product>
</Wix>
"""
"""An installer with an action in a library."""


def program_32(code: int, *, dotnet: bool = False) -> bytes:
    """A 32-bit program that ends with ``code``, which its entry returns. One of .NET has a header that says so."""
    text = b"\xb8" + struct.pack("<I", code) + b"\xc2\x04\x00"  # mov eax, code; ret 4
    file = struct.pack("<HHIIIHH", 0x14C, 1, 0, 0, 0, 224, 0x0103)
    optional = struct.pack(
        "<HBBIIIIII", 0x10B, 2, 0, _ALIGNED, 0, 0, _PAGE, _PAGE, _PAGE
    )  # code, its entry and base, the base of data
    optional += struct.pack("<III6HI", 0x400000, _PAGE, _ALIGNED, 4, 0, 0, 0, 4, 0, 0)
    optional += struct.pack("<IIIHHIIIIII", 2 * _PAGE, _ALIGNED, 0, 3, 0, 1 << 20, _PAGE, 1 << 20, _PAGE, 0, 16)
    directories = [b"\0" * 8] * 16
    if dotnet:
        directories[14] = struct.pack("<II", _PAGE, 72)
    section = struct.pack("<8sIIIIIIHHI", b".text", len(text), _PAGE, _ALIGNED, _ALIGNED, 0, 0, 0, 0, 0x60000020)
    head = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + file + optional + b"".join(directories) + section
    return head.ljust(_ALIGNED, b"\0") + text.ljust(_ALIGNED, b"\0")
