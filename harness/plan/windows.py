# SPDX-License-Identifier: Apache-2.0
"""WindowsApplicationProfile, in the order of a deployment as it can be reconstructed (spec, section 5.1).

1. roles and features [GUIDE 18274]; 2. OnProvisionFirst on the first instance, OnProvisionRest on the others, then
PreInstall by DeploymentOrder [PKG: five packages test in PreInstall what OnProvisionFirst made]; 3. SQL deployments;
4. applications: Web Deploy, SQL DAC, script applications, each with its own PreInstall, install and PostInstall
[INFER: VMM's application profile; the order of the kinds is unknown]; 5. the profile's PostInstall.
Scripts run at the first deployment only, script applications at each servicing too [BLOG 2015-02-09].
DeploymentOrder counts per script type; ties and missing orders keep the order of the document [PKG].
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from harness.plan.step import Credential, Event, Kind, Step

if TYPE_CHECKING:
    from harness.package.models import Command, CredentialValue, Script
    from harness.package.parameters import Parameters
    from harness.package.reader import Package

SOURCE: Final = "/ExtensionSettings/ApplicationProfile/WindowsApplicationProfile"
#: Without a ScriptCredential [INFER: real packages do machine-level work so].
ACCOUNT: Final = "NT AUTHORITY\\SYSTEM"
DEFAULT_REBOOT_CODES: Final = "{1641}|{3010}|{3011}"

#: Event -> script types of the profile that run before and after the applications.
_PROFILE_TYPES: Final[dict[Event, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "deploy": (("OnProvision", "PreInstall"), ("PostInstall",)),
    "scale-out": (("OnProvision", "PreInstall"), ("PostInstall",)),
    "update": (("PreService",), ("PostService",)),
    "delete": (("PreUninstall",), ("PostUninstall", "OnDelete")),
}
#: The same for the ScriptCommands of one application.
_APPLICATION_TYPES: Final[dict[Event, tuple[str, str]]] = {
    "deploy": ("PreInstall", "PostInstall"),
    "scale-out": ("PreInstall", "PostInstall"),
    "update": ("PreService", "PostService"),
    "delete": ("PreUninstall", "PostUninstall"),
}


def windows_steps(
    package: Package, parameters: Parameters, event: Event, instance: int, applicable: bool
) -> list[Step]:
    """Every step of the Windows profile for this event, in order."""
    return _Maker(package, parameters, event, instance, applicable).steps()


class _Maker:
    def __init__(self, package: Package, parameters: Parameters, event: Event, instance: int, applicable: bool) -> None:
        self.profile = package.extension.windows
        self.parameters = parameters
        self.event: Event = event
        self.instance = instance
        self.applicable = applicable
        self.made: list[Step] = []
        self.ids: set[str] = set()

    def steps(self) -> list[Step]:
        first = self.event in ("deploy", "scale-out")
        if first:
            self.features()
        before, after = _PROFILE_TYPES[self.event]
        scripts = self.profile.provisioning_scripts
        at = f"{SOURCE}/ProvisioningScripts"
        for kind in before:
            self.scripts(scripts, self.in_instance(kind), at, "")
        if first:
            self.sql_deployments()
        self.applications(first)
        for kind in after:
            self.scripts(scripts, self.in_instance(kind), at, "")
        return self.made

    def in_instance(self, kind: str) -> str:
        """OnProvision and OnDelete come in two kinds: for one instance, and for the rest."""
        if kind == "OnProvision":
            return "OnProvisionFirst" if self.instance == 1 else "OnProvisionRest"
        if kind == "OnDelete":
            return "OnDeleteLast" if self.instance == 1 else "OnDeleteRest"
        return kind

    def features(self) -> None:
        names: dict[str, int] = {}
        for index, name in enumerate(self.profile.windows_server_roles_and_features):
            names.setdefault(name.strip().lower(), index)  # the guide's own sample repeats names
        for index in names.values():
            filled = self.parameters.fill(self.profile.windows_server_roles_and_features[index].strip())
            self.add(
                f"feature-{filled.masked}",
                f"role or feature {filled.masked}",
                "feature",
                f"{SOURCE}/WindowsServerRolesAndFeatures/{index}",
                [f"Install-WindowsFeature -Name {filled.text}", f"Install-WindowsFeature -Name {filled.masked}"],
                filled.unresolved,
                reboot="when the feature needs it",
            )

    def scripts(self, scripts: Iterable[Script], script_type: str, source: str, prefix: str) -> None:
        """The scripts of one type, by order; the type's name is compared without case."""
        names = {script_type.lower()}
        if script_type == "OnProvisionRest":
            names.add("onprovisionlast")  # what the reference page calls it, and nothing else does
        mine = [
            (index, script)
            for index, script in enumerate(scripts)
            if (script.script_type or "").strip().lower() in names
        ]
        ordered = sorted(mine, key=lambda pair: (self.number(pair[1].deployment_order) or 0, pair[0]))
        for place, (index, script) in enumerate(ordered, 1):
            order = self.number(script.deployment_order)
            name = f"{prefix}{_kebab(script_type)}-{order if order is not None else place}"
            self.command(name, script, f"{source}/{index}", "script", script_type, order)

    def command(
        self, id: str, command: Command, source: str, kind: Kind, script_type: str, order: int | None,
        environment: tuple[tuple[str, str], ...] = (), missing: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        fill = self.parameters.fill
        program = command.executable_and_params
        if program is not None and program.executable:
            parts = [fill(program.executable), *([fill(program.parameters)] if program.parameters else [])]
        else:
            parts = [fill(command.script_block or "")]
        directory = fill(command.working_directory) if command.working_directory else None
        account, credential, open_names = self.account(command.script_credential)
        unresolved = [name for part in parts for name in part.unresolved]
        unresolved += [*(directory.unresolved if directory else ()), *open_names, *missing]
        codes = command.reboot_exit_code_regex
        if not command.written("reboot_exit_code_regex"):
            codes = DEFAULT_REBOOT_CODES
        shown = " ".join(part.masked for part in parts)
        self.add(
            id,
            _short(shown),
            kind,
            source,
            [" ".join(part.text for part in parts), shown],
            tuple(unresolved),
            script_type=script_type,
            order=order,
            working_directory=directory.text if directory else None,
            working_directory_shown=directory.masked if directory else None,
            account=account,
            credential=credential,
            timeout=self.seconds(command.timeout_in_seconds),
            reboot=self.reboot(command.always_reboot, codes),
            on_failure="warn" if (command.error_policy or "").lower() == "warnandcontinueonmatch" else "fail",
            payload_id=command.application_payload_id,
            environment=environment,
        )

    def sql_deployments(self) -> None:
        profile = self.profile.sql_profile
        for index, deployment in enumerate(profile.sql_deployments if profile else ()):
            instance = self.parameters.fill(deployment.instance_name or "")
            media = self.parameters.fill(deployment.media_source or "setup.exe")
            account, credential, names = self.account(deployment.sql_deployment_credential)
            self.add(
                f"sql-{deployment.deployment_name or index + 1}",
                f"SQL Server instance {instance.masked}",
                "sql-deployment",
                f"{SOURCE}/SQLProfile/SQLDeployments/{index}",
                [f"{part} /ACTION=CompleteImage" for part in (media.text, media.masked)],
                (*instance.unresolved, *media.unresolved, *names),
                account=account,
                credential=credential,
                timeout=self.seconds(deployment.deployment_time_out_in_seconds),
                payload_id=deployment.sql_configuration_payload_id,
            )

    def applications(self, first: bool) -> None:
        before, after = _APPLICATION_TYPES[self.event]
        for index, web in enumerate(self.profile.web_deploy_applications):
            source, name = f"{SOURCE}/WebDeployApplications/{index}", str(web.deployment_name or index + 1)
            self.scripts(web.script_commands, before, f"{source}/ScriptCommands", f"webdeploy-{name}-")
            if first:
                values = [self.parameters.fill(item.value or "") for item in web.web_deploy_parameters]
                names = tuple(name for value in values for name in value.unresolved)
                self.add(f"webdeploy-{name}", f"Web Deploy package of {name}", "web-deploy", source,
                         ["msdeploy.exe -verb:sync"] * 2, names, payload_id=web.application_payload_id)  # fmt: skip
            self.scripts(web.script_commands, after, f"{source}/ScriptCommands", f"webdeploy-{name}-")
        for index, dac in enumerate(self.profile.sql_dac_applications):
            self.sql_dac(index, dac, before, after, first)
        for index, script in enumerate(self.profile.script_applications):
            source, name = f"{SOURCE}/ScriptApplications/{index}", str(script.deployment_name or index + 1)
            pairs = [(item.name or "", self.parameters.fill(item.value or "")) for item in script.environment_variables]
            environment = tuple((key, value.text) for key, value in pairs)
            missing = tuple(name for _, value in pairs for name in value.unresolved)
            prefix = f"script-app-{name}-"
            self.scripts(script.script_commands, before, f"{source}/ScriptCommands", prefix)
            if self.event != "delete":
                self.command(
                    f"{prefix}install", script, source, "script-application", "Install", None, environment, missing
                )
            self.scripts(script.script_commands, after, f"{source}/ScriptCommands", prefix)

    def sql_dac(self, index: int, dac: Any, before: str, after: str, first: bool) -> None:
        source, name = f"{SOURCE}/SQLDacApplications/{index}", str(dac.deployment_name or index + 1)
        prefix = f"sqldac-{name}-"
        for script_type in (before, after):
            self.scripts(dac.script_commands, script_type, f"{source}/ScriptCommands", prefix)
            self.sql_scripts(dac, script_type, source, prefix)
            if script_type == before and first:
                target = self.parameters.fill(dac.dac_instance or "")
                server = self.parameters.fill(dac.sql_instance or "")
                account, credential, names = self.account(dac.sql_deployment_credential)
                self.add(f"sqldac-{name}", f"database {target.masked}", "sql-dac", source,
                         ["SqlPackage.exe /Action:Publish"] * 2, (*target.unresolved, *server.unresolved, *names),
                         account=account, credential=credential, payload_id=dac.application_payload_id)  # fmt: skip

    def sql_scripts(self, dac: Any, script_type: str, source: str, prefix: str) -> None:
        mine = [
            (index, script)
            for index, script in enumerate(dac.sql_script_commands)
            if (script.script_type or "").strip().lower() == script_type.lower()
        ]
        mine.sort(key=lambda pair: (self.number(pair[1].deployment_order) or 0, pair[0]))
        for place, (index, script) in enumerate(mine, 1):
            order = self.number(script.deployment_order)
            database = self.parameters.fill(script.database_name or "")
            account, credential, names = self.account(script.script_credential)
            self.add(f"{prefix}sql-{_kebab(script_type)}-{order if order is not None else place}",
                     f"SQL script in database {database.masked}", "sql-script", f"{source}/SQLScriptCommands/{index}",
                     [f"sqlcmd.exe -d {text}" for text in (database.text, database.masked)],
                     (*database.unresolved, *names), script_type=script_type, order=order, account=account,
                     credential=credential, timeout=self.seconds(script.execution_timeout_seconds),
                     payload_id=script.sql_script_application_payload_id)  # fmt: skip

    # ---- values

    def number(self, value: int | str | None) -> int | None:
        """A whole number that may come from a parameter; None when it is none."""
        if isinstance(value, str):
            text = self.parameters.fill(value).text.strip()
            return int(text) if re.fullmatch(r"[-+]?[0-9]{1,18}", text) else None
        return value

    def seconds(self, value: int | str | None) -> float | None:
        number = self.number(value)
        return float(number) if number is not None and number > 0 else None

    def reboot(self, always: bool | str | None, codes: str | None) -> str:
        """When the guest restarts; the pattern is a list of exit codes, not a regular expression [spec 4.2]."""
        if isinstance(always, str):
            always = self.parameters.fill(always).text.strip().lower() == "true"
        if always:
            return "always"
        numbers = re.findall(r"-?[0-9]+", codes or "")
        return f"exit code {', '.join(numbers)}" if numbers else "never"

    def account(self, value: CredentialValue) -> tuple[str, Credential | None, tuple[str, ...]]:
        """Account to show, credential, unresolved names."""
        if value is None or value == "":
            return ACCOUNT, None, ()
        if isinstance(value, str):
            filled = self.parameters.fill(value)
            user, colon, secret = filled.text.partition(":")
            shown = filled.masked.partition(":")[0]
            return shown, Credential(user, secret) if colon or not filled.unresolved else None, filled.unresolved
        name, word = self.parameters.fill(value.user_name or ""), self.parameters.fill(value.password or "")
        return name.masked, Credential(name.text, word.text), (*name.unresolved, *word.unresolved)

    def add(
        self, id: str, name: str, kind: Kind, source: str, commands: list[str], unresolved: tuple[str, ...], **rest: Any
    ) -> None:
        # ids are names of folders, also where those are compared without case
        id = re.sub(r"(?:[^A-Za-z0-9._]|-)+", "-", id)[:80].strip("-")
        unique, count = id, 1
        while unique.lower() in self.ids:
            count += 1
            unique = f"{id}-{count}"
        self.ids.add(unique.lower())
        rest.setdefault("account", ACCOUNT)
        names = tuple(dict.fromkeys(unresolved))
        self.made.append(
            Step(id=unique, name=name, kind=kind, os="windows", command_line=commands[0], command=commands[1],
                 source=source, applicable=self.applicable, unresolved=names, **rest)
        )  # fmt: skip


def _short(text: str) -> str:
    """A name of one line."""
    line = " ".join(text.split())
    return line if len(line) <= 100 else line[:97] + "..."


def _kebab(name: str) -> str:
    """OnProvisionFirst -> on-provision-first, PreInstall -> preinstall."""
    words = re.sub(r"^On(?=[A-Z])", "on-", name)
    words = re.sub(r"(?<=[a-z])(First|Rest|Last)$", r"-\1", words)
    return words.lower()
