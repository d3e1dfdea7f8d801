# SPDX-License-Identifier: Apache-2.0
"""How slow an emulated guest is: the same work of its image, natively at the build and in the guest.

Processor times are compared and not durations: they hardly depend on what else the host has to do. The work is done
once before it is measured: what only the first time needs, a server that Wine starts for example, does not count.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import CommandError
from harness.image.builders.namespace import inside
from harness.image.recipe import MOST_SLOWNESS, Recipe
from harness.process import run

_SECONDS = 60.0
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
# The first process of its namespace: what ends is reaped here, and what stays, as Wine's server does, is looked at.
# All of it ends with this process. The least of some tries counts, as nothing makes it less than it is.
_TIMED = """\
import contextlib, glob, os, resource, subprocess, sys
tree = sys.argv[1]
def used():
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    ended, staying = resource.getrusage(resource.RUSAGE_CHILDREN), 0
    for path in glob.glob(f"{tree}/proc/[0-9]*/task/*/schedstat"):
        with contextlib.suppress(OSError):
            staying += int(open(path).read().split()[0]) if path.split("/")[-4] != str(os.getpid()) else 0
    return ended.ru_utime + ended.ru_stime + staying / 1e9
def work():
    subprocess.run(["chroot", tree, "/usr/bin/env", "-i", *sys.argv[2:]],
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
subprocess.run(["mount", "-t", "proc", "proc", f"{tree}/proc"], check=True)
subprocess.run(["mount", "--rbind", "/dev", f"{tree}/dev"], check=True)
work()
tries = []
for _ in range(5):
    before = used()
    work()
    tries.append(used() - before)
print(min(tries))
"""


def command(recipe: Recipe) -> list[str]:
    """The argv that does the work of ``recipe`` and says nothing; it fails when the work does."""
    return ["sh", "-c", f"exec >/dev/null 2>&1; {recipe.work}"]


def native_seconds(recipe: Recipe, tree: Path, *, deadline: Deadline) -> float | None:
    """Processor time of the work in ``tree`` on this computer's processor; None where it does not run here.

    The tree is not what it was afterwards.
    """
    if not recipe.work:
        return None
    variables = [f"{name}={value}" for name, value in _ENVIRONMENT.items()]
    argv = [sys.executable, "-c", _TIMED, str(tree), *variables, *command(recipe)]
    try:
        done = run(inside(argv), deadline=deadline.within(_SECONDS))
    except CommandError:
        return None
    return round(float(done.stdout), 4) or None


def slowness(emulated: float, native: float | None) -> float | None:
    """How many times more processor time the emulator took, at least 1 and at most MOST_SLOWNESS; None where the times
    tell nothing."""
    if not native or emulated <= 0:
        return None
    return round(min(MOST_SLOWNESS, max(1.0, emulated / native)), 1)
