# SPDX-License-Identifier: Apache-2.0
"""Removing a machine from another libvirt than the in-process one, in a process of its own.

A libvirt that is out of reach answers late or never, and no call to it can be ended but with its process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import CommandError, HostError, VmRoleError
from harness.process import run

_REFUSED = 3
"""Exit code of the process when it said why the machine could not be removed."""


def remove_elsewhere(uri: str, name: str, volumes: Sequence[str], *, deadline: Deadline) -> None:
    """Remove the domain ``name`` and ``volumes`` of the pool vmrole from the libvirt ``uri``; what is gone is well.

    Raises HostError when they may still be there.
    """
    order = json.dumps({"uri": uri, "name": name, "volumes": sorted(volumes)}).encode()
    try:
        # -P: no module of the folder that the user stands in
        argv = [sys.executable, "-P", "-m", "harness.machine.elsewhere"]
        # What reaches another host is in the environment: keys of SSH, a folder of certificates.
        path = os.pathsep.join([str(Path(__file__).parents[2]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
        done = run(argv, deadline=deadline, stdin=order, env={**os.environ, "PYTHONPATH": path}, ok=(0, _REFUSED))
    except CommandError as error:
        if error.returncode is None:
            shown = uri.split("?")[0]
            raise HostError(f"{shown} does not answer within {deadline.seconds:.3g} s") from None
        raise
    if done.returncode:
        raise HostError(done.stdout.decode("utf-8", "replace").strip())


def _remove(uri: str, name: str, volumes: Sequence[str]) -> None:
    import libvirt

    from harness.machine.qemu.connection import open_libvirt, start_event_loop

    @contextlib.contextmanager
    def gone_is_well(*codes: int) -> Iterator[None]:
        try:
            yield
        except libvirt.libvirtError as error:
            if error.get_error_code() not in codes:
                raise HostError(f"{uri.split('?')[0]} refuses: {error.get_error_message()}") from error

    start_event_loop()
    with contextlib.closing(open_libvirt(uri)) as connection:
        with gone_is_well(libvirt.VIR_ERR_NO_DOMAIN):
            connection.lookupByName(name).destroy()
        with gone_is_well(libvirt.VIR_ERR_NO_STORAGE_POOL):
            pool = connection.storagePoolLookupByName("vmrole")
            for volume in volumes:
                with gone_is_well(libvirt.VIR_ERR_NO_STORAGE_VOL):
                    pool.storageVolLookupByName(volume).delete(0)


def _main() -> int:
    order = json.load(sys.stdin)
    try:
        _remove(order["uri"], order["name"], order["volumes"])
    except VmRoleError as error:
        sys.stdout.write(error.message)
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main())
