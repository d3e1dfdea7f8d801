# SPDX-License-Identifier: Apache-2.0
"""ResourceDefinition, ResourceConfiguration and the VirtualMachineRole instance as they are written.

As tolerant as harness.package.models: scalars may be strings, nearly every value may hold ``[Param.X]``, everything
may be missing; ``REQUIRED`` says what the format wants. Sources: [DOC dn249735, dn249733, dn249751 and their pages],
[GUIDE 18273], [PKG: 13 definitions].
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from harness.package.models import CredentialValue, Many, Model, Number, Parameter, Text


def _nested(value: Any) -> Any:
    if value is None or isinstance(value, str | dict):
        return value
    raise PydanticCustomError("nested", "this has to be a string with a JSON object in it")


#: A JSON object in a string [GUIDE, PKG]; the object itself is understood too, and a finding.
NestedJson = Annotated[str | dict[str, Any] | None, BeforeValidator(_nested)]


class HardwareProfile(Model):
    """``vm_size`` names a size profile; harness.package.sizes has the default ones."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("VMSize",)
    vm_size: Text = Field(default=None, alias="VMSize")


class ScaleOutSettings(Model):
    """Numbers of instances; [DOC dn249735]."""

    initial_instance_count: Number = Field(default=None, alias="InitialInstanceCount")
    minimum_instance_count: Number = Field(default=None, alias="MinimumInstanceCount")
    maximum_instance_count: Number = Field(default=None, alias="MaximumInstanceCount")
    upgrade_domain_count: Number = Field(default=None, alias="UpgradeDomainCount")


class DataVirtualHardDisk(Model):
    """A data disk: an image as ``Family:Version`` and its logical unit number on the SCSI controller [DOC dn249752]."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("DataVirtualHardDiskImage", "Lun")
    data_virtual_hard_disk_image: Text = Field(default=None, alias="DataVirtualHardDiskImage")
    lun: Number = Field(default=None, alias="Lun")


class StorageProfile(Model):
    """Disks; images are ``Family:Version``, VMM's family name and release [DOC dn249752]."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("OSVirtualHardDiskImage",)
    os_virtual_hard_disk_image: Text = Field(default=None, alias="OSVirtualHardDiskImage")
    data_virtual_hard_disks: Many[DataVirtualHardDisk] = Field(default=(), alias="DataVirtualHardDisks")


class PortConfig(Model):
    """A balanced port; front and back end have to be the same number [DOC]."""

    name: Text = Field(default=None, alias="Name")
    protocol: Text = Field(default=None, alias="Protocol")
    front_end_port: Number = Field(default=None, alias="FrontEndPort")
    back_end_port: Number = Field(default=None, alias="BackEndPort")


class LoadBalancerConfiguration(Model):
    """A front end of the load balancer; the members of ``probe`` are not evidenced and kept as they are."""

    configuration_name: Text = Field(default=None, alias="ConfigurationName")
    front_end_network: Text = Field(default=None, alias="FrontEndNetwork")
    port_config: PortConfig | None = Field(default=None, alias="PortConfig")
    probe: dict[str, Any] | None = Field(default=None, alias="Probe")


class IPAddress(Model):
    """An address of an adapter: Dynamic or Static, IPV4 or IPV6."""

    allocation_method: Text = Field(default=None, alias="AllocationMethod")
    type: Text = Field(default=None, alias="Type")
    configuration_name: Text = Field(default=None, alias="ConfigurationName")
    load_balancer_configurations: Many[LoadBalancerConfiguration] = Field(
        default=(), alias="LoadBalancerConfigurations"
    )


class NetworkAdapter(Model):
    REQUIRED: ClassVar[tuple[str, ...]] = ("Name",)
    name: Text = Field(default=None, alias="Name")
    network_ref: Text = Field(default=None, alias="NetworkRef")
    ip_addresses: Many[IPAddress] = Field(default=(), alias="IPAddresses")


class NetworkProfile(Model):
    network_adapters: Many[NetworkAdapter] = Field(default=(), alias="NetworkAdapters")


class DomainJoin(Model):
    REQUIRED: ClassVar[tuple[str, ...]] = ("DomainToJoin", "DomainJoinCredentials")
    domain_to_join: Text = Field(default=None, alias="DomainToJoin")
    domain_join_credentials: CredentialValue = Field(default=None, alias="DomainJoinCredentials")


class WindowsOperatingSystemProfile(Model):
    """Either a workgroup or a domain [DOC dn249737]."""

    workgroup_name: Text = Field(default=None, alias="WorkgroupName")
    domain_join: DomainJoin | None = Field(default=None, alias="DomainJoin")


class LinuxOperatingSystemProfile(Model):
    """[DOC dn249737]"""

    dns_domain_name: Text = Field(default=None, alias="DNSDomainName")
    ssh_public_key: Text = Field(default=None, alias="SSHPublicKey")


class OperatingSystemProfile(Model):
    """How the system is specialised; of the two profiles one is null. Without any the image is used unchanged."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("ComputerNamePattern", "TimeZone", "AdminCredential")
    computer_name_pattern: Text = Field(default=None, alias="ComputerNamePattern")
    time_zone: Text = Field(default=None, alias="TimeZone")
    admin_credential: CredentialValue = Field(default=None, alias="AdminCredential")
    windows_operating_system_profile: WindowsOperatingSystemProfile | None = Field(
        default=None, alias="WindowsOperatingSystemProfile"
    )
    linux_operating_system_profile: LinuxOperatingSystemProfile | None = Field(
        default=None, alias="LinuxOperatingSystemProfile"
    )


class IntrinsicSettings(Model):
    REQUIRED: ClassVar[tuple[str, ...]] = ("HardwareProfile", "StorageProfile")
    hardware_profile: HardwareProfile | None = Field(default=None, alias="HardwareProfile")
    scale_out_settings: ScaleOutSettings | None = Field(default=None, alias="ScaleOutSettings")
    storage_profile: StorageProfile | None = Field(default=None, alias="StorageProfile")
    network_profile: NetworkProfile | None = Field(default=None, alias="NetworkProfile")
    operating_system_profile: OperatingSystemProfile | None = Field(default=None, alias="OperatingSystemProfile")


class ResourceExtensionReference(Model):
    """Which extension, by name, publisher and version, and what its parameters are: JSON in a string [PKG]."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("ReferenceName", "Name", "Version")
    reference_name: Text = Field(default=None, alias="ReferenceName")
    name: Text = Field(default=None, alias="Name")
    publisher: Text = Field(default=None, alias="Publisher")
    version: Text = Field(default=None, alias="Version")
    resource_extension_parameter_values: NestedJson = Field(default=None, alias="ResourceExtensionParameterValues")


class ResourceDefinition(Model):
    """The document of a `.resdef`."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("Name", "Version", "Type", "IntrinsicSettings")
    schema_version: Text = Field(default=None, alias="SchemaVersion")
    name: Text = Field(default=None, alias="Name")
    publisher: Text = Field(default=None, alias="Publisher")
    version: Text = Field(default=None, alias="Version")
    type: Text = Field(default=None, alias="Type")
    resource_parameters: Many[Parameter] = Field(default=(), alias="ResourceParameters")
    resource_extension_references: Many[ResourceExtensionReference] = Field(
        default=(), alias="ResourceExtensionReferences"
    )
    intrinsic_settings: IntrinsicSettings | None = Field(default=None, alias="IntrinsicSettings")

    @property
    def intrinsic(self) -> IntrinsicSettings:
        """The settings of the machine; empty ones when the document has none."""
        return self.intrinsic_settings or IntrinsicSettings()


class ResourceConfiguration(Model):
    """Values for a definition's parameters; the version has to grow with each update [DOC dn249733]."""

    REQUIRED: ClassVar[tuple[str, ...]] = ("Version", "ParameterValues")
    version: Text = Field(default=None, alias="Version")
    parameter_values: NestedJson = Field(default=None, alias="ParameterValues")


class VMRoleMessage(Model):
    """[DOC dn502550]; the qualifier is Error, Warning or Info."""

    vm_id: Text = Field(default=None, alias="VmId")
    message_qualifier: Text = Field(default=None, alias="MessageQualifier")
    message: Text = Field(default=None, alias="Message")


class Substate(Model):
    vm_role_messages: Many[VMRoleMessage] = Field(default=(), alias="VMRoleMessages")


class InstanceView(Model):
    """[DOC dn502553]; the members of a VIP are not evidenced and kept as they are."""

    instance_count: Number = Field(default=None, alias="InstanceCount")
    resolved_resource_definition: ResourceDefinition | None = Field(default=None, alias="ResolvedResourceDefinition")
    vips: Many[dict[str, Any]] = Field(default=(), alias="VIPs")


class VirtualMachineRole(Model):
    """An instance as the service's interface has it [DOC dn249751].

    At creation ``provisioning_state``, ``substate`` and ``instance_view`` are null [SRC WAPTenantPublicAPI]. States are
    Provisioning, Provisioned, Updating, Failed and Deprovisioning.
    """

    REQUIRED: ClassVar[tuple[str, ...]] = ("Name", "ResourceDefinition", "ResourceConfiguration")
    name: Text = Field(default=None, alias="Name")
    label: Text = Field(default=None, alias="Label")
    resource_definition: ResourceDefinition | None = Field(default=None, alias="ResourceDefinition")
    resource_configuration: ResourceConfiguration | None = Field(default=None, alias="ResourceConfiguration")
    provisioning_state: Text = Field(default=None, alias="ProvisioningState")
    substate: Substate | None = Field(default=None, alias="Substate")
    instance_view: InstanceView | None = Field(default=None, alias="InstanceView")
