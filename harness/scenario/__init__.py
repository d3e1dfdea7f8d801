# SPDX-License-Identifier: Apache-2.0
"""What a scenario author writes with. docs/scenarios.md is made from the docstrings in here."""

from harness.scenario.guest import ScenarioGuest
from harness.scenario.role import ScenarioRole
from harness.scenario.start import PlanOf, VmRole

__all__ = ["PlanOf", "ScenarioGuest", "ScenarioRole", "VmRole"]
