# SPDX-License-Identifier: Apache-2.0
"""A local VM Role emulator and test harness.

Data flows one way: package -> plan -> machine -> guest -> run -> report.
"""

__version__ = "0.1.0"
