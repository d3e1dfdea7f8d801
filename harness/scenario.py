# SPDX-License-Identifier: Apache-2.0
"""What a scenario author writes with: a role that was run, its steps, and the guest it ran in."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import GuestError
from harness.guest.protocol import GuestResult
from harness.run.result import CertificateResult, LocalResourceResult, RunResult, StepResult
from harness.run.runner import Role

COMMAND_SECONDS = 120.0
"""How long a guest command of a scenario may take unless it says otherwise."""


class ScenarioGuest:
    """The guest of a role, while the test runs."""

    def __init__(self, role: Role) -> None:
        self._role = role

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float = COMMAND_SECONDS,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> GuestResult:
        """Run ``argv`` without a shell as administrator."""
        if self._role.deployed is None:
            raise GuestError("there is no machine: the run did not get that far")
        return self._role.deployed.guest.run(
            argv, deadline=Deadline(timeout + 30), timeout=timeout, stdin=stdin, env=env, cwd=cwd
        )

    def succeed(self, *argv: str, timeout: float = COMMAND_SECONDS) -> str:
        """Run ``argv``, require exit code 0, return what it wrote to standard output."""
        done = self.run(argv, timeout=timeout)
        if done.exit_code != 0:
            raise AssertionError(f"{shlex.join(argv)} was to succeed, but {_told(done)}")
        return done.stdout.decode("utf-8", "replace")

    def fail(self, *argv: str, timeout: float = COMMAND_SECONDS) -> GuestResult:
        """Run ``argv``, require another exit code than 0, return the result."""
        done = self.run(argv, timeout=timeout)
        if done.exit_code == 0:
            raise AssertionError(f"{shlex.join(argv)} was to fail, but {_told(done)}")
        return done

    def reboot(self, *, timeout: float = 300.0) -> str:
        """Reboot, wait until the guest is ready again, return the new boot id."""
        if self._role.deployed is None:
            raise GuestError("there is no machine: the run did not get that far")
        return self._role.deployed.guest.reboot(deadline=Deadline(timeout))


class ScenarioRole:
    """A VM Role that was deployed: what `vm_role` returns."""

    def __init__(self, role: Role) -> None:
        self._role = role
        self.guest = ScenarioGuest(role)

    @property
    def result(self) -> RunResult:
        return self._role.result

    @property
    def verdict(self) -> str:
        return str(self.result.verdict)

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self._role.request.output

    def step(self, id: str) -> StepResult:
        """The step called ``id``; AssertionError names those there are."""
        for step in self._role.steps:
            if step.id == id:
                return step
        known = ", ".join(step.id for step in self._role.steps) or "none"
        raise AssertionError(f"the run has no step {id}; its steps are {known}")

    def local_resource(self, name: str) -> LocalResourceResult:
        """The local resource called ``name``."""
        for resource in self.result.instances[0].local_resources:
            if resource.name == name:
                return resource
        raise AssertionError(f"the machine has no local resource {name}")

    def certificate(self, thumbprint: str) -> CertificateResult:
        """The certificate with ``thumbprint`` (SHA-1, upper case)."""
        for certificate in self.result.instances[0].certificates:
            if certificate.thumbprint == thumbprint:
                return certificate
        raise AssertionError(f"the machine has no certificate {thumbprint}")


def _told(done: GuestResult) -> str:
    ended = "was stopped at its time-out" if done.timed_out else f"ended with {done.exit_code}"
    out = done.stdout.decode("utf-8", "replace").strip()[-500:]
    err = done.stderr.decode("utf-8", "replace").strip()[-500:]
    return f"it {ended}; stdout: {out!r}; stderr: {err!r}"
