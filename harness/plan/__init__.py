# SPDX-License-Identifier: Apache-2.0
"""What is executed, in which order and why: a package and parameter values become steps. Nothing is run here."""

from harness.plan.maker import make_plan, require_steps
from harness.plan.step import OS, Credential, Event, Plan, Step

__all__ = ["OS", "Credential", "Event", "Plan", "Step", "make_plan", "require_steps"]
