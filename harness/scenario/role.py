# SPDX-License-Identifier: Apache-2.0
"""A VM Role that was deployed for a scenario: how that went, and the guest it went in."""

from __future__ import annotations

import re
from pathlib import Path

from harness.run.request import RunRequest
from harness.run.result import CertificateResult, LocalResourceResult, PretendedCall, RunResult, StepResult
from harness.run.runner import Role
from harness.scenario.guest import ScenarioGuest


class ScenarioRole:
    """What ``vm_role`` returns."""

    guest: ScenarioGuest
    """The machine the role was deployed into; it is there until the test ends."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self.guest = ScenarioGuest(role.deployed, role.bus, role.masker)

    @property
    def verdict(self) -> str:
        """``succeeded``, ``warnings``, ``incomplete``, ``failed``, ``error`` or ``interrupted``."""
        return str(self.result.verdict)

    @property
    def result(self) -> RunResult:
        """Everything that result.json has, typed."""
        return self._role.result

    @property
    def request(self) -> RunRequest:
        """What was asked for: the package, the plan, the machine."""
        return self._role.request

    @property
    def directory(self) -> Path:
        """The run directory. Its report.html is written when the test is over."""
        return self._role.request.output

    @property
    def steps(self) -> tuple[StepResult, ...]:
        """The steps in their order."""
        return self._role.steps

    def step(self, id: str) -> StepResult:
        """The step called ``id``: its ``outcome``, ``exit_code``, ``stdout``, ``stderr``, ``seconds``, ``finding``."""
        __tracebackhide__ = True
        for step in self._role.steps:
            if step.id == id:
                return step
        known = ", ".join(step.id for step in self._role.steps) or "none"
        raise AssertionError(f"the run has no step {id}; its steps are {known}")

    def pretended(self, step: str) -> tuple[PretendedCall, ...]:
        """The calls of the step called ``step`` that were only pretended: each has a ``command`` and ``parameters``."""
        __tracebackhide__ = True
        return self.step(step).pretended

    def local_resource(self, name: str) -> LocalResourceResult:
        """The local resource called ``name``: its ``path`` in the guest and ``size_mb``."""
        __tracebackhide__ = True
        there = [resource for instance in self.result.instances for resource in instance.local_resources]
        for resource in there:
            if resource.name.casefold() == name.casefold():
                return resource
        known = ", ".join(resource.name for resource in there) or "none"
        raise AssertionError(f"the machine has no local resource {name}; its local resources are {known}")

    def certificate(self, thumbprint: str) -> CertificateResult:
        """The certificate with ``thumbprint`` (SHA-1, spaced as you like): its ``store`` and ``path`` in the guest."""
        __tracebackhide__ = True
        wanted = re.sub(r"[\s:]", "", thumbprint).upper()
        there = [certificate for instance in self.result.instances for certificate in instance.certificates]
        for certificate in there:
            if certificate.thumbprint == wanted:
                return certificate
        known = ", ".join(certificate.thumbprint for certificate in there) or "none"
        raise AssertionError(f"the machine has no certificate {wanted}; its certificates are {known}")
