# SPDX-License-Identifier: Apache-2.0
"""The resident half of the stand-in guest: Windows Setup's part, WinRM, and what Windows programs ask of the machine.

It runs in the guest with Python and pyspnego alone, and knows nothing of the harness (docs/windows-guest.md).
"""
