# SPDX-License-Identifier: Apache-2.0
"""Windows guests: the seam harness.run.system for them."""

from __future__ import annotations

from harness.run.windows.system import WindowsSystem

SYSTEM = WindowsSystem()
