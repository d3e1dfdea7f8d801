# SPDX-License-Identifier: Apache-2.0
"""Calls of libvirt that make files or processes: whole, whatever signals come, and whatever the user's umask is."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_CLONE_FS = 0x200
_UMASK = 0o022
"""libvirt makes its folders by the umask; the account that QEMU runs under has to pass through them."""


def undisturbed(call: Callable[[], T]) -> T:
    """Do ``call`` in a thread of its own and wait for its end; a signal that comes meanwhile is raised after it.

    The thread has a umask of its own (unshare(2)), so that what the rest of the process writes keeps the user's.
    """
    results: list[T] = []
    errors: list[BaseException] = []
    over = threading.Event()

    def body() -> None:
        try:
            results.append(_with_umask(call))
        except BaseException as error:
            errors.append(error)
        finally:
            over.set()

    told: BaseException | None = None
    try:
        threading.Thread(target=body, name="libvirt-call", daemon=True).start()
    except KeyboardInterrupt as signalled:  # the thread runs, or is about to
        told = signalled
    while not over.is_set():
        try:
            over.wait()
        except KeyboardInterrupt as signalled:
            told = told or signalled
    if told:
        raise told
    if errors:
        raise errors[0]
    return results[0]


def _with_umask(call: Callable[[], T]) -> T:
    own = ctypes.CDLL(None, use_errno=True).unshare(_CLONE_FS) == 0
    before = os.umask(_UMASK)
    try:
        return call()
    finally:
        if not own:  # a container's rules may forbid it: then everybody has it for so long
            os.umask(before)
