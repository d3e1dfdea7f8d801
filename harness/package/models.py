# SPDX-License-Identifier: Apache-2.0
"""The ResourceExtension as its author wrote it: every field of the reference page and of the published packages.

Attribute names are the JSON names in snake case (``SQLDacApplications`` is ``sql_dac_applications``). Types are as
tolerant as the platform: booleans and integers may be strings [PKG: all of them are], nearly every value may hold
``[Param.X]`` [GUIDE], and everything may be missing; ``REQUIRED`` of each class says what the format wants, and
harness.package.check turns that into findings. Sources: [DOC dn249757] and its pages, [GUIDE 18274], [PKG].
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from harness.package.sizes import LARGEST

_PLACEHOLDER: Final = re.compile(r"(?i:\[param\.)[^\]\[]+\]")

BOOLEANS: Final = {"true": True, "false": False}


def _text(value: Any) -> Any:
    """Scalars in place of a string are read as their JSON text; the authoring tool was as lax the other way."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return value


def _flag(value: Any) -> Any:
    if isinstance(value, str):
        if value.strip().lower() in BOOLEANS:
            return BOOLEANS[value.strip().lower()]
        if not value.strip():
            return None
        if not _PLACEHOLDER.search(value):
            raise PydanticCustomError("boolean", "{value} is not true or false", {"value": repr(value[:60])})
    elif not isinstance(value, bool | None):
        raise PydanticCustomError("boolean", "this is not true or false")
    return value


def _number(value: Any, largest: int = LARGEST) -> Any:
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        if not re.fullmatch(r"[-+]?[0-9]{1,4000}", text):
            if not _PLACEHOLDER.search(value):
                raise PydanticCustomError("integer", "{value} is not a whole number", {"value": repr(value[:60])})
            return value
        value = int(text)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, bool) or not isinstance(value, int | None):
        raise PydanticCustomError("integer", "this is not a whole number")
    if value is not None and abs(value) > largest:
        raise PydanticCustomError("integer", f"this number is out of range: {largest} is the largest")
    return value


def _sequence(value: Any) -> Any:
    """A missing list and null are an empty one."""
    return () if value is None else value


Text = Annotated[str | None, BeforeValidator(_text)]
Flag = Annotated[bool | str | None, BeforeValidator(_flag)]
Number = Annotated[int | str | None, BeforeValidator(_number)]
#: A limit that the portal alone compares with.
LongNumber = Annotated[int | str | None, BeforeValidator(lambda value: _number(value, 2**63 - 1))]
T = TypeVar("T")
Many = Annotated[tuple[T, ...], BeforeValidator(_sequence)]
Texts = Many[Annotated[str, BeforeValidator(_text)]]


class Model(BaseModel):
    """A JSON object of the format. Unknown members stay in ``model_extra``."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=False, defer_build=True)
    REQUIRED: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def names(cls) -> dict[str, str]:
        """JSON name -> attribute name, in the order of the class."""
        return {field.alias or name: name for name, field in cls.model_fields.items()}

    @model_validator(mode="before")
    @classmethod
    def _letters(cls, value: Any) -> Any:
        """Take members whose names differ only in case, where the exact one is missing."""
        if not isinstance(value, dict):
            return value
        known = cls.names()
        strangers = [key for key in value if key not in known]
        if not strangers:
            return value
        lower = {name.lower(): name for name in known}
        value = dict(value)
        for key in strangers:
            name = lower.get(key.lower())
            if name is not None and name not in value:
                value[name] = value.pop(key)
        return value


class ExternalPayload(Model):
    """A file that is not redistributed in the package; ``hash`` is SHA-256 in hexadecimal."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("RelativePath",)
    relative_path: Text = Field(default=None, alias="RelativePath")
    hash: Text = Field(default=None, alias="Hash")
    url_hint: Text = Field(default=None, alias="URLHint")


class DataPackage(Model):
    """Where the payload is: ``location`` is a folder relative to the root of the package."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("Version", "Location")
    version: Text = Field(default=None, alias="Version")
    location: Text = Field(default=None, alias="Location")
    external_payload: Many[ExternalPayload] = Field(default=(), alias="ExternalPayload")


class Parameter(Model):
    """A declared parameter; types are compared without case [PKG]."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("Name", "Type")
    name: Text = Field(default=None, alias="Name")
    type: Text = Field(default=None, alias="Type")
    description: Text = Field(default=None, alias="Description")


class ResourceRequirements(Model):
    """Tags that the virtual hard disk must carry, all of them [GUIDE 18276]."""

    os_virtual_hard_disk_requirements: Texts = Field(default=(), alias="OSVirtualHardDiskRequirements")


class Credential(Model):
    """The object form of a credential [DOC dn249757 sample]."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("UserName", "Password")
    user_name: Text = Field(default=None, alias="UserName")
    password: Text = Field(default=None, alias="Password")


CredentialValue = Annotated[Credential | str | None, Field(union_mode="left_to_right")]


class ExecutableAndParams(Model):
    """A program and the rest of its command line, which is one string."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("Executable",)
    executable: Text = Field(default=None, alias="Executable")
    parameters: Text = Field(default=None, alias="Parameters")


class Command(Model):
    """What scripts and script applications have in common [DOC dn249753, dn249746]."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("ErrorPolicy",)
    always_reboot: Flag = Field(default=None, alias="AlwaysReboot")
    application_payload_id: Text = Field(default=None, alias="ApplicationPayloadId")
    error_policy: Text = Field(default=None, alias="ErrorPolicy")
    executable_and_params: ExecutableAndParams | None = Field(default=None, alias="ExecutableAndParams")
    exit_code_regex: Text = Field(default=None, alias="ExitCodeRegex")
    max_output_size: Number = Field(default=None, alias="MaxOutputSize")
    reboot_exit_code_regex: Text = Field(default=None, alias="RebootExitCodeRegex")
    restart_on_exit_code_reboot: Flag = Field(default=None, alias="RestartOnExitCodeReboot")
    restart_on_retry: Flag = Field(default=None, alias="RestartOnRetry")
    script_block: Text = Field(default=None, alias="ScriptBlock")
    script_credential: CredentialValue = Field(default=None, alias="ScriptCredential")
    standard_error_path: Text = Field(default=None, alias="StandardErrorPath")
    standard_error_regex: Text = Field(default=None, alias="StandardErrorRegex")
    standard_input: Text = Field(default=None, alias="StandardInput")
    standard_output_path: Text = Field(default=None, alias="StandardOutputPath")
    standard_output_regex: Text = Field(default=None, alias="StandardOutputRegex")
    timeout_in_seconds: Number = Field(default=None, alias="TimeoutInSeconds")
    working_directory: Text = Field(default=None, alias="WorkingDirectory")

    def written(self, name: str) -> bool:
        """Whether the author wrote this attribute at all; null counts as written, a missing member does not."""
        return name in self.model_fields_set


class Script(Command):
    """An item of ProvisioningScripts or of an application's ScriptCommands."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("ErrorPolicy", "ScriptType")
    deployment_order: Number = Field(default=None, alias="DeploymentOrder")
    script_type: Text = Field(default=None, alias="ScriptType")


Scripts = Many[Script]


class EnvironmentVariable(Model):
    REQUIRED: ClassVar[tuple[str, ...]] = ("Name", "Value")
    name: Text = Field(default=None, alias="Name")
    value: Text = Field(default=None, alias="Value")


class ScriptApplication(Command):
    """An application that is a command; run at deployment and at each servicing [DOC dn249746, BLOG 2015-02-09]."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("DeploymentName", "ErrorPolicy")
    deployment_name: Text = Field(default=None, alias="DeploymentName")
    script_commands: Scripts = Field(default=(), alias="ScriptCommands")
    environment_variables: Many[EnvironmentVariable] = Field(default=(), alias="EnvironmentVariables")


class WebDeployParameter(Model):
    REQUIRED: ClassVar[tuple[str, ...]] = ("ParameterName",)
    parameter_name: Text = Field(default=None, alias="ParameterName")
    value: Text = Field(default=None, alias="Value")


class WebDeployApplication(Model):
    """[DOC dn249738]"""

    REQUIRED: ClassVar[tuple[str, ...]] = ("DeploymentName", "ApplicationPayloadId")
    deployment_name: Text = Field(default=None, alias="DeploymentName")
    application_payload_id: Text = Field(default=None, alias="ApplicationPayloadId")
    package_password: Text = Field(default=None, alias="PackagePassword")
    script_commands: Scripts = Field(default=(), alias="ScriptCommands")
    web_deploy_parameters: Many[WebDeployParameter] = Field(default=(), alias="WebDeployParameters")


class SqlScriptCommand(Model):
    """[DOC dn249754]"""

    command_parameters: Text = Field(default=None, alias="CommandParameters")
    database_name: Text = Field(default=None, alias="DatabaseName")
    deployment_order: Number = Field(default=None, alias="DeploymentOrder")
    encrypt_connection: Flag = Field(default=None, alias="EncryptConnection")
    execution_timeout_seconds: Number = Field(default=None, alias="ExecutionTimeoutSeconds")
    login_timeout_seconds: Number = Field(default=None, alias="LoginTimeoutSeconds")
    output_file_path: Text = Field(default=None, alias="OutputFilePath")
    sql_authentication_type: Text = Field(default=None, alias="SQLAuthenticationType")
    sql_script_application_payload_id: Text = Field(default=None, alias="SQLScriptApplicationPayloadId")
    script_credential: CredentialValue = Field(default=None, alias="ScriptCredential")
    script_type: Text = Field(default=None, alias="ScriptType")


class SqlDacApplication(Model):
    """[DOC dn249754]"""

    REQUIRED: ClassVar[tuple[str, ...]] = ("DeploymentName", "ApplicationPayloadId", "DacInstance")
    application_payload_id: Text = Field(default=None, alias="ApplicationPayloadId")
    block_on_changes: Flag = Field(default=None, alias="BlockOnChanges")
    dac_instance: Text = Field(default=None, alias="DacInstance")
    deployment_name: Text = Field(default=None, alias="DeploymentName")
    ignore_data_loss: Flag = Field(default=None, alias="IgnoreDataLoss")
    rollback_on_failure: Flag = Field(default=None, alias="RollbackOnFailure")
    script_commands: Scripts = Field(default=(), alias="ScriptCommands")
    skip_policy_validation: Flag = Field(default=None, alias="SkipPolicyValidation")
    sql_authentication_type: Text = Field(default=None, alias="SQLAuthenticationType")
    sql_deployment_credential: CredentialValue = Field(default=None, alias="SQLDeploymentCredential")
    sql_instance: Text = Field(default=None, alias="SQLInstance")
    sql_script_commands: Many[SqlScriptCommand] = Field(default=(), alias="SQLScriptCommands")
    uninstall_mode: Text = Field(default=None, alias="UninstallMode")


class SqlDeployment(Model):
    """An instance of SQL Server, completed on a prepared image [DOC dn249740]."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("DeploymentName", "InstanceName")
    deployment_name: Text = Field(default=None, alias="DeploymentName")
    deployment_time_out_in_seconds: Number = Field(default=None, alias="DeploymentTimeOutInSeconds")
    enable_named_pipes: Flag = Field(default=None, alias="EnableNamedPipes")
    enable_tcp: Flag = Field(default=None, alias="EnableTCP")
    instance_id: Text = Field(default=None, alias="InstanceID")
    instance_name: Text = Field(default=None, alias="InstanceName")
    media_source: Text = Field(default=None, alias="MediaSource")
    product_key: Text = Field(default=None, alias="ProductKey")
    sa_password: Text = Field(default=None, alias="SAPassword")
    sql_agent_service_credential: CredentialValue = Field(default=None, alias="SQLAgentServiceCredential")
    sql_authentication_type: Text = Field(default=None, alias="SQLAuthenticationType")
    sql_configuration_payload_id: Text = Field(default=None, alias="SQLConfigurationPayloadId")
    sql_deployment_credential: CredentialValue = Field(default=None, alias="SQLDeploymentCredential")
    sql_reporting_service_credential: CredentialValue = Field(default=None, alias="SQLReportingServiceCredential")
    sql_service_credential: CredentialValue = Field(default=None, alias="SQLServiceCredential")
    sql_sys_admin_member_list: Text = Field(default=None, alias="SQLSysAdminMemberList")


class SqlProfile(Model):
    sql_deployments: Many[SqlDeployment] = Field(default=(), alias="SQLDeployments")


class WindowsApplicationProfile(Model):
    """What happens in a Windows guest; the arrays may be empty or missing [PKG]."""

    windows_server_roles_and_features: Texts = Field(default=(), alias="WindowsServerRolesAndFeatures")
    sql_profile: SqlProfile | None = Field(default=None, alias="SQLProfile")
    provisioning_scripts: Scripts = Field(default=(), alias="ProvisioningScripts")
    web_deploy_applications: Many[WebDeployApplication] = Field(default=(), alias="WebDeployApplications")
    sql_dac_applications: Many[SqlDacApplication] = Field(default=(), alias="SQLDacApplications")
    script_applications: Many[ScriptApplication] = Field(default=(), alias="ScriptApplications")


class LinuxApplicationProfile(Model):
    """What happens in a Linux guest; no other member is documented [DOC dn249757]."""

    run_once_commands: Texts = Field(default=(), alias="RunOnceCommands")


class ApplicationPayload(Model):
    """A name (a GUID) for a folder or file below the data package's location [GUIDE 18274]."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("ID", "RelativePath")
    id: Text = Field(default=None, alias="ID")
    relative_path: Text = Field(default=None, alias="RelativePath")


class ApplicationProfile(Model):
    REQUIRED: ClassVar[tuple[str, ...]] = ("Name",)
    name: Text = Field(default=None, alias="Name")
    application_payload: Many[ApplicationPayload] = Field(default=(), alias="ApplicationPayload")
    linux_application_profile: LinuxApplicationProfile | None = Field(default=None, alias="LinuxApplicationProfile")
    windows_application_profile: WindowsApplicationProfile | None = Field(
        default=None, alias="WindowsApplicationProfile"
    )


class ExtensionSettings(Model):
    """[DOC dn249743]; its SchemaVersion is documented as required and absent from every real package."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("ApplicationProfile",)
    schema_version: Text = Field(default=None, alias="SchemaVersion")
    application_profile: ApplicationProfile | None = Field(default=None, alias="ApplicationProfile")


class ResourceExtension(Model):
    """The document of a `.resext`.

    The contract's name comes under three members: ``ExtensionType`` [DOC], ``Type`` [PKG] and
    ``ExtensionHostingContract`` [GUIDE]; ``contract`` is the one that is there.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("SchemaVersion", "Name", "Version", "ExtensionSettings")
    schema_version: Text = Field(default=None, alias="SchemaVersion")
    name: Text = Field(default=None, alias="Name")
    version: Text = Field(default=None, alias="Version")
    publisher: Text = Field(default=None, alias="Publisher")
    type: Text = Field(default=None, alias="Type")
    extension_type: Text = Field(default=None, alias="ExtensionType")
    extension_hosting_contract: Text = Field(default=None, alias="ExtensionHostingContract")
    data_package: DataPackage | None = Field(default=None, alias="DataPackage")
    resource_extension_parameters: Many[Parameter] = Field(default=(), alias="ResourceExtensionParameters")
    resource_requirements: ResourceRequirements | None = Field(default=None, alias="ResourceRequirements")
    extension_settings: ExtensionSettings | None = Field(default=None, alias="ExtensionSettings")

    @property
    def contract(self) -> str | None:
        return self.type or self.extension_type or self.extension_hosting_contract

    @property
    def profile(self) -> ApplicationProfile:
        """The application profile; an empty one when the document has none."""
        settings = self.extension_settings
        return (settings and settings.application_profile) or ApplicationProfile()

    @property
    def linux(self) -> LinuxApplicationProfile:
        return self.profile.linux_application_profile or LinuxApplicationProfile()

    @property
    def windows(self) -> WindowsApplicationProfile:
        return self.profile.windows_application_profile or WindowsApplicationProfile()
