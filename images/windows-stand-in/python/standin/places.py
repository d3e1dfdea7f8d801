# SPDX-License-Identifier: Apache-2.0
"""Where things are in the stand-in guest."""

from __future__ import annotations

from pathlib import Path

STATE = Path("/var/lib/standin")
"""For root alone: what has to outlive a boot."""
PREFIX = STATE / "prefix"
DRIVE = PREFIX / "drive_c"
DEVICES = PREFIX / "dosdevices"
PASSWORD = STATE / "administrator"
"""The hash of the administrator's password, as Windows keeps one."""
CERTIFICATE = STATE / "winrm.pem"
"""Certificate and private key of the HTTPS listener."""
LOG = Path("/run/vmrole/standin.log")
KERNEL_LOG = Path("/run/vmrole/kernel.log")
PARTNER = Path("/run/vmrole/partner")
"""Where the resident agent asks for what it cannot do (images/debian-12/agent/partner.c)."""
READY = Path("/run/vmrole/ready")
"""What the agent writes when this boot is ready."""
RECYCLE = Path("/var/lib/vmrole/recycle")
"""What the agent empties at the next boot (images/debian-12/agent/resources.c)."""
RESTARTING = DRIVE / "ProgramData/VMRole/restarting"
"""There while a restart is announced, with the seconds that it was announced for (vmrole-run.c)."""
PROGRAMS = Path("/usr/lib/vmrole/standin")
WINE = "/usr/lib/wine/wine64"
HOME = "C:\\users\\Administrator"
SYSTEM = "C:\\windows\\system32"
CONTROL_PORT = 5984
"""Where Windows programs ask for what only Linux can do; on the loopback only, and in the registry."""

ENVIRONMENT = {
    "HOME": "/root",
    "USER": "Administrator",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "en_US.UTF-8",
    "TZ": "UTC",
    "WINEPREFIX": str(PREFIX),
    "WINEDEBUG": "err+all,fixme-all",  # to LOG; never to what a program says
    # Not mscoree, which Wine's setup has no use for: the libraries of .NET ask for it.
    "WINEDLLOVERRIDES": "mshtml=;winemenubuilder.exe=d",
}
