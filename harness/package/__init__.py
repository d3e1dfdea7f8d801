# SPDX-License-Identifier: Apache-2.0
"""What a VM Role package is: read, checked, and its parameters filled in.

bytes -> archive -> jsontext (tree with places) -> check (model and findings) -> reader (Package) -> parameters; the
same for definitions: check_definition -> definition (Definition) -> resolve.
Importing this package is cheap: the models, which need pydantic, are imported by what reads.
"""

from harness.package.archive import Entry
from harness.package.definition import (
    Configuration,
    Definition,
    Instance,
    is_definition,
    read_any,
    read_configuration,
    read_definition,
    read_instance,
)
from harness.package.findings import Finding, Findings
from harness.package.pack import pack_extension
from harness.package.parameters import Given, Parameters, read_parameters, read_values
from harness.package.payload import Payload
from harness.package.reader import Package, read_package

__all__ = [
    "Configuration",
    "Definition",
    "Entry",
    "Finding",
    "Findings",
    "Given",
    "Instance",
    "Package",
    "Parameters",
    "Payload",
    "is_definition",
    "pack_extension",
    "read_any",
    "read_configuration",
    "read_definition",
    "read_instance",
    "read_package",
    "read_parameters",
    "read_values",
]
