# SPDX-License-Identifier: Apache-2.0
"""QEMU machines through libvirt: in process by default, any other libvirt by its URI."""

import os

# libvirt reads this once, when its module is loaded. Its warnings would otherwise land on the user's terminal; who
# wants them sets the variable.
os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "3:file:/dev/null")
