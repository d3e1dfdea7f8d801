# SPDX-License-Identifier: Apache-2.0
"""Linux guests: the seam harness.run.system for them."""

from __future__ import annotations

from harness.run.linux.system import LinuxSystem

SYSTEM = LinuxSystem()
