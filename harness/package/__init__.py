# SPDX-License-Identifier: Apache-2.0
"""What a VM Role package is: read, checked, and its parameters filled in.

bytes -> archive -> jsontext (tree with places) -> check (model and findings) -> reader (Package) -> parameters.
Importing this package is cheap: the models, which need pydantic, are imported by ``read_package``.
"""

from harness.package.archive import Entry, pack_extension
from harness.package.findings import Finding, Findings
from harness.package.parameters import Parameters, read_parameters
from harness.package.payload import Payload
from harness.package.reader import Package, read_package

__all__ = [
    "Entry",
    "Finding",
    "Findings",
    "Package",
    "Parameters",
    "Payload",
    "pack_extension",
    "read_package",
    "read_parameters",
]
