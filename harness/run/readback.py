# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Observation:
    name: str
    wanted: str
    observed: str
    ok: bool
    provable: bool
