# SPDX-License-Identifier: Apache-2.0
"""WindowsApplicationProfile, in the order of a deployment as it can be reconstructed (spec, section 5.1).

1. roles and features [GUIDE 18274]; 2. OnProvisionFirst on the first instance, OnProvisionRest on the others, then
PreInstall by DeploymentOrder [PKG: five packages test in PreInstall what OnProvisionFirst made]; 3. SQL deployments;
4. applications: Web Deploy, SQL DAC, script applications, each with its own PreInstall, install and PostInstall
[INFER: VMM's application profile; the order of the kinds is unknown]; 5. the profile's PostInstall.
Scripts run at the first deployment only, script applications at each servicing too [BLOG 2015-02-09]. Deleting runs
PreUninstall, what applications have for their removal, PostUninstall and OnDelete [VMM service model, INFER].
DeploymentOrder counts per script type; ties and missing orders keep the order of the document [PKG].
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from harness.package.patterns import Defaults, FailurePolicy, failure_policy
from harness.package.sizes import LARGEST
from harness.plan import guestpaths, products
from harness.plan.names import kebab, powershell_word, short
from harness.plan.step import Credential, Event, Kind, Step

if TYPE_CHECKING:
    from harness.package.models import Command, CredentialValue, Script, SqlDacApplication, WebDeployApplication
    from harness.package.parameters import Parameters
    from harness.package.reader import Package
    from harness.package.substitution import Substituted
    from harness.plan.line import Line

SOURCE: Final = "/ExtensionSettings/ApplicationProfile/WindowsApplicationProfile"
#: Without a ScriptCredential [INFER: real packages do machine-level work so].
ACCOUNT: Final = "NT AUTHORITY\\SYSTEM"
_PATTERNS: Final = ("exit_code_regex", "standard_output_regex", "standard_error_regex", "reboot_exit_code_regex")
_Variables = tuple[tuple[str, str], ...]

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
    package: Package,
    parameters: Parameters,
    event: Event,
    instance: int,
    applicable: bool,
    pattern_defaults: Defaults = "recorded",
) -> list[Step]:
    """Every step of the Windows profile for this event, in order."""
    return _Maker(package, parameters, event, instance, applicable, pattern_defaults).steps()


class _Maker:
    def __init__(
        self,
        package: Package,
        parameters: Parameters,
        event: Event,
        instance: int,
        applicable: bool,
        pattern_defaults: Defaults,
    ) -> None:
        self.package = package
        self.pattern_defaults: Defaults = pattern_defaults
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
        """OnProvision and OnDelete come in two kinds: for one instance, and for the rest [INFER from the names].

        Instances that a scale-out adds are never the first: that one is there already.
        """
        if kind == "OnProvision":
            first = self.instance == 1 and self.event != "scale-out"
            return "OnProvisionFirst" if first else "OnProvisionRest"
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
                [f"Install-WindowsFeature -Name {powershell_word(text)}" for text in (filled.text, filled.masked)],
                filled.unresolved,
                reboot="when the feature needs it",
            )

    def scripts(
        self,
        scripts: Iterable[Script],
        script_type: str,
        source: str,
        prefix: str,
        environment: _Variables = (),
        missing: tuple[str, ...] = (),
    ) -> None:
        """The scripts of one type, by order and then by place [PKG: the order of the array means nothing].

        The type's name is compared without case; a script without an order comes first [GUESS].
        """
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
            name = f"{prefix}{kebab(script_type)}-{order if order is not None else place}"
            self.command(name, script, f"{source}/{index}", "script", script_type, order, environment, missing)

    def command(
        self, id: str, command: Command, source: str, kind: Kind, script_type: str, order: int | None,
        environment: _Variables = (), missing: tuple[str, ...] = (),
    ) -> None:  # fmt: skip
        """A program start or a batch text, with everything that decides how it runs and what its outcome means."""
        unresolved: list[str] = []

        def fill(text: str | None) -> Substituted | None:
            filled = self.parameters.fill(text) if text else None
            unresolved.extend(filled.unresolved if filled else ())
            return filled

        program = command.executable_and_params
        executable = fill(program.executable) if program else None
        rest = fill(program.parameters) if program and executable else None
        # a script block is a batch text [INFER: the sample's is `rem ...`]; a program wins over it [GUESS]
        block = fill(command.script_block) if executable is None else None
        parts = [part for part in (executable, rest, block) if part]
        written = fill(command.working_directory)
        out, err, stdin = (
            fill(text) for text in (command.standard_output_path, command.standard_error_path, command.standard_input)
        )
        account, credential, open_names = self.account(command.script_credential)
        # deleting has no payload any more [DOC dn249753]
        payload_id = None if script_type.startswith("OnDelete") else command.application_payload_id
        found = guestpaths.payload_path(self.package, payload_id)
        folder = (found[0].rpartition("\\")[0] if found[1] else found[0]) if found else None
        paths = [path.text if path else None for path in (out, err)]
        policy = self.policy(command, unresolved)
        # a path is a file of the guest, anything else is the text itself [GUESS: the sources contradict each other]
        from_file = stdin is not None and re.match(r"(?:[A-Za-z]:|%\w+%|\\)\\", stdin.text) is not None
        shown = " ".join(part.masked for part in parts)
        self.add(
            id,
            short(shown),
            kind,
            source,
            [" ".join(part.text for part in parts), shown],
            (*unresolved, *open_names, *missing),
            script_type=script_type,
            order=order,
            working_directory=guestpaths.working_directory(folder, written.text if written else None),
            working_directory_shown=guestpaths.working_directory(folder, written.masked if written else None),
            account=account,
            credential=credential,
            timeout=self.seconds(command.timeout_in_seconds),
            reboot=policy.reboot,
            on_failure="warn" if policy.error_policy == "WarnAndContinueOnMatch" else "fail",
            payload_id=payload_id,
            environment=environment,
            executable=executable.text if executable else None,
            parameters=rest.text if rest else None,
            script_block=block.text if block else None,
            policy=policy,
            stdout_path=paths[0],
            stderr_path=paths[1],
            stdin=stdin.text.encode("utf-8", "replace") if stdin and not from_file else b"",
            stdin_path=stdin.text if stdin and from_file else None,
            folders=guestpaths.parent_folders(paths),
            max_output_size=self.number(command.max_output_size) or None,
        )

    def policy(self, command: Command, unresolved: list[str]) -> FailurePolicy:
        texts: dict[str, str] = {}
        for name in _PATTERNS:
            value = getattr(command, name)
            if value:
                filled = self.parameters.fill(value)
                unresolved.extend(filled.unresolved)
                texts[name] = filled.text
        return failure_policy(
            command,
            error_policy=self.parameters.fill(command.error_policy or "").text,
            fill=texts,
            defaults=self.pattern_defaults,
            always_reboot=self.flag(command.always_reboot),
            restart_on_exit_code_reboot=self.flag(command.restart_on_exit_code_reboot),
            restart_on_retry=self.flag(command.restart_on_retry),
        )

    def sql_deployments(self) -> None:
        profile = self.profile.sql_profile
        for index, deployment in enumerate(profile.sql_deployments if profile else ()):
            instance = self.parameters.fill(deployment.instance_name or "")
            account, credential, names = self.account(deployment.sql_deployment_credential)
            payload = deployment.sql_configuration_payload_id
            line = products.sql_setup(deployment, self.parameters, self.file(payload) if payload else None)
            self.tool(
                f"sql-{deployment.deployment_name or index + 1}",
                f"SQL Server instance {instance.masked}",
                "sql-deployment",
                f"{SOURCE}/SQLProfile/SQLDeployments/{index}",
                line,
                names,
                account=account,
                credential=credential,
                timeout=self.seconds(deployment.deployment_time_out_in_seconds),
                payload_id=payload,
            )

    def applications(self, first: bool) -> None:
        before, after = _APPLICATION_TYPES[self.event]
        for index, web in enumerate(self.profile.web_deploy_applications):
            self.web_deploy(index, web, before, after, first)
        for index, dac in enumerate(self.profile.sql_dac_applications):
            self.sql_dac(index, dac, before, after, first)
        for index, script in enumerate(self.profile.script_applications):
            source, name = f"{SOURCE}/ScriptApplications/{index}", str(script.deployment_name or index + 1)
            pairs = [(item.name or "", self.parameters.fill(item.value or "")) for item in script.environment_variables]
            # of the application's own command and of its scripts [DOC dn249746]
            environment = tuple((key, value.text) for key, value in pairs if key)
            missing = tuple(name for _, value in pairs for name in value.unresolved)
            prefix, commands = f"script-app-{name}-", f"{source}/ScriptCommands"
            self.scripts(script.script_commands, before, commands, prefix, environment, missing)
            if self.event != "delete":
                self.command(
                    f"{prefix}install", script, source, "script-application", "Install", None, environment, missing
                )
            self.scripts(script.script_commands, after, commands, prefix, environment, missing)

    def web_deploy(self, index: int, web: WebDeployApplication, before: str, after: str, first: bool) -> None:
        source, name = f"{SOURCE}/WebDeployApplications/{index}", str(web.deployment_name or index + 1)
        self.scripts(web.script_commands, before, f"{source}/ScriptCommands", f"webdeploy-{name}-")
        if first:
            line = products.web_deploy(web, self.parameters, self.file(web.application_payload_id))
            title = f"Web Deploy package of {self.parameters.fill(name).masked}"
            payload = web.application_payload_id
            self.tool(f"webdeploy-{name}", title, "web-deploy", source, line, (), payload_id=payload)
        self.scripts(web.script_commands, after, f"{source}/ScriptCommands", f"webdeploy-{name}-")

    def sql_dac(self, index: int, dac: SqlDacApplication, before: str, after: str, first: bool) -> None:
        source, name = f"{SOURCE}/SQLDacApplications/{index}", str(dac.deployment_name or index + 1)
        prefix = f"sqldac-{name}-"
        target = f"database {self.parameters.fill(dac.dac_instance or '').masked}"
        account, credential, names = self.tool_account(dac.sql_deployment_credential, dac.sql_authentication_type)
        for script_type in (before, after):
            self.scripts(dac.script_commands, script_type, f"{source}/ScriptCommands", prefix)
            self.sql_scripts(dac, script_type, source, prefix)
            if script_type != before:
                continue
            if first:
                line = products.dac_publish(dac, self.parameters, self.file(dac.application_payload_id))
                self.tool(f"sqldac-{name}", target, "sql-dac", source, line, names,
                          account=account, credential=credential, payload_id=dac.application_payload_id)  # fmt: skip
            elif self.event == "delete":
                away = products.dac_uninstall(dac, self.parameters)
                if away is not None:
                    self.tool(f"{prefix}uninstall", target, "sql-dac", source, away, names,
                              account=account, credential=credential)  # fmt: skip

    def sql_scripts(self, dac: SqlDacApplication, script_type: str, source: str, prefix: str) -> None:
        mine = [
            (index, script)
            for index, script in enumerate(dac.sql_script_commands)
            if (script.script_type or "").strip().lower() == script_type.lower()
        ]
        mine.sort(key=lambda pair: (self.number(pair[1].deployment_order) or 0, pair[0]))
        for place, (index, script) in enumerate(mine, 1):
            order = self.number(script.deployment_order)
            database = self.parameters.fill(script.database_name or "")
            account, credential, names = self.tool_account(script.script_credential, script.sql_authentication_type)
            payload = script.sql_script_application_payload_id
            log = self.parameters.fill(script.output_file_path or "")
            line = products.sql_script(script, dac, self.parameters, self.file(payload))
            self.tool(f"{prefix}sql-{kebab(script_type)}-{order if order is not None else place}",
                      f"SQL script in database {database.masked}", "sql-script", f"{source}/SQLScriptCommands/{index}",
                      line, names, script_type=script_type, order=order, account=account, credential=credential,
                      timeout=self.seconds(script.execution_timeout_seconds), payload_id=payload,
                      folders=guestpaths.parent_folders((log.text,)))  # fmt: skip

    def tool(
        self, id: str, name: str, kind: Kind, source: str, line: Line, names: tuple[str, ...], **rest: Any
    ) -> None:
        """A product's own tool: no failure patterns are written for it, so its exit code is judged [INFER]."""
        policy = FailurePolicy()
        commands = [line.text, line.masked]
        unresolved = (*line.unresolved, *names)
        self.add(id, name, kind, source, commands, unresolved, policy=policy, reboot=policy.reboot, **rest)

    def file(self, payload_id: str | None) -> str:
        """The payload's place in the guest; its identifier in angle brackets when the package does not have it."""
        found = guestpaths.payload_path(self.package, payload_id)
        return found[0] if found else f"<payload {(payload_id or 'without an identifier')[:60]}>"

    # ---- values

    def number(self, value: int | str | None) -> int | None:
        """A whole number that may come from a parameter; None when it is none."""
        if isinstance(value, str):
            text = self.parameters.fill(value).text.strip()
            if not re.fullmatch(r"[-+]?[0-9]{1,4000}", text):
                return None
            value = max(-LARGEST, min(LARGEST, int(text)))
        return value

    def seconds(self, value: int | str | None) -> float | None:
        number = self.number(value)
        return float(number) if number is not None and number > 0 else None

    def flag(self, value: bool | str | None) -> bool:
        """A Boolean that may come from a parameter; missing ones are false [DOC]."""
        if isinstance(value, str):
            return self.parameters.fill(value).text.strip().lower() == "true"
        return bool(value)

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

    def tool_account(
        self, value: CredentialValue, authentication: str | None
    ) -> tuple[str, Credential | None, tuple[str, ...]]:
        """The same for a tool that talks to SQL Server: a login of the server's own is no account of Windows."""
        account, credential, names = self.account(value)
        return (ACCOUNT, None, names) if products.sql_login(authentication) else (account, credential, names)

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
