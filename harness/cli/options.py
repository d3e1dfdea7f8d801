# SPDX-License-Identifier: Apache-2.0
"""Options that commands share, and what they mean."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.package.machine_settings import MachineSettings
    from harness.package.service import Service
    from harness.run.answer import LocalResource
    from harness.run.certificates import Certificate
    from harness.run.request import MachineRequest

_POWERSHELL = [
    click.option("--pretend", multiple=True, metavar="NAMES",
                 help="Cmdlets that a stand-in with PowerShell pretends to have, with commas; 'common' for all "
                 "that are known. The run is incomplete then."),
    click.option("--pretend-modules", type=click.Path(path_type=Path), metavar="DIR",
                 help="PowerShell modules of your own that take the place of missing ones."),
    click.option("--cold-engines", is_flag=True,
                 help="Each step of PowerShell on a stand-in starts its own engine: none that stands by takes it."),
]  # fmt: skip
F = TypeVar("F", bound=Callable[..., Any])

_SECRET_BYTES = 64 * 1024
_MACHINE = [
    click.option("--image", default="debian-12", show_default=True, metavar="NAME[@KEY]",
                 help="Guest image to use, and which build of it alone will do."),
    click.option("--certificate", "certificates", multiple=True, metavar="FILE[:STORE]",
                 help="Certificate to install (PFX, or PEM with its key); store My unless named."),
    click.option("--certificate-password-file", type=click.Path(path_type=Path), help="Password of PFX files."),
    click.option("--local-resource", "local_resources", multiple=True, metavar="NAME[=MB][:keep]",
                 help="Local resource to create, 100 MB unless sized; with :keep a recycle does not empty it."),
    click.option("--computer-name", metavar="PATTERN", help="Name of the machine; # is its number, * random."),
    click.option("--admin-password-file", type=click.Path(path_type=Path),
                 help="Administrator password; random otherwise."),
    click.option("--answer-file", type=click.Path(path_type=Path), metavar="FILE",
                 help="Answer file of Windows to merge ours into."),
    click.option("--memory", type=click.IntRange(min=128), metavar="MB",
                 help="Memory of the machine; the image's own, or what a definition's size says."),
    click.option("--cpus", type=click.IntRange(min=1, max=64), metavar="N",
                 help="Processors of the machine; the image's own, or what a definition's size says."),
    click.option("--network", type=click.Choice(["none", "nat"]), default="none", show_default=True,
                 help="none: no way out at all; nat: whatever this host reaches."),
    click.option("--service-definition", type=click.Path(path_type=Path), metavar="X.csdef",
                 help="Certificates, local resources and settings of a VirtualMachineRole."),
    click.option("--service-configuration", type=click.Path(path_type=Path), metavar="X.cscfg",
                 help="Their thumbprints and values; certificates come from --certificate files."),
    click.option("--service-role", metavar="NAME", help="The VirtualMachineRole, where there are several."),
    click.option("--connect", metavar="URI", help="Another libvirt than the in-process one, e.g. qemu:///system."),
]  # fmt: skip


MACHINE_OPTIONS = (
    "image", "certificates", "certificate_password_file", "local_resources", "computer_name", "admin_password_file",
    "answer_file", "memory", "cpus", "network", "connect", "instance", "service_definition", "service_configuration",
    "service_role",
)  # fmt: skip
"""Arguments of ``machine_request``."""


def powershell_options(function: F) -> F:
    """--pretend, --pretend-modules and --cold-engines."""
    for option in reversed(_POWERSHELL):
        function = option(function)
    return function


def machine_options(function: F) -> F:
    """The options that describe a machine, the same words everywhere."""
    for option in reversed(_MACHINE):
        function = option(function)
    return function


def machine_request(
    *,
    image: str,
    certificates: tuple[str, ...],
    certificate_password_file: Path | None,
    local_resources: tuple[str, ...],
    computer_name: str | None,
    admin_password_file: Path | None,
    answer_file: Path | None = None,
    memory: int | None,
    cpus: int | None,
    network: str,
    connect: str | None,
    instance: int = 1,
    service_definition: Path | None = None,
    service_configuration: Path | None = None,
    service_role: str | None = None,
    definition: MachineSettings | None = None,
) -> MachineRequest:
    """A MachineRequest from the values of ``machine_options``; everything is read and checked here.

    An option wins over ``definition``, what a resource definition says of the machine, and that over the service
    definition. Raises UsageError for what cannot be read or is not valid.
    """
    from harness.cli.wishes import Wishes
    from harness.image import catalog
    from harness.run.answer import check_computer_name, check_duplicates, hash_password, parse_local_resource
    from harness.run.answer import computer_name as make_name
    from harness.run.certificates import check_keys, load_certificates, parse_certificate_option
    from harness.run.request import NAME_PATTERN, MachineRequest

    if connect is not None:
        from harness.machine.qemu.connection import check_uri

        check_uri(connect)
    image, _, key = image.partition("@")
    recipe = catalog.load(image).recipe
    if key and not re.fullmatch(r"[0-9a-f]{8,64}", key):
        raise UsageError(f"{key!r} is no image key", hint="'vmrole images list' shows them")
    password = read_secret(certificate_password_file) if certificate_password_file else None
    loaded: list[Certificate] = []
    for text in certificates:
        path, store = parse_certificate_option(text)
        loaded += load_certificates(path, store, password.encode() if password is not None else None)
    if recipe.stand_in:
        check_keys(loaded, recipe.name)
    resources = tuple(parse_local_resource(text) for text in local_resources)
    service = read_service_of(service_definition, service_configuration, service_role, instance)
    if service:
        loaded = placed(loaded, service)
        resources = (*resources, *wanted_resources(service, resources))
    check_duplicates(resources)
    wishes = Wishes(recipe.memory_mb)
    wishes.add_options(memory_mb=memory, cpus=cpus, computer_name=computer_name)
    if admin_password_file:
        wishes.administrator_password = read_secret(admin_password_file)
    if definition:
        wishes.add_definition(definition, instance)
    if service:
        wishes.add_service(service)
    if wishes.administrator_password is not None:
        hash_password(wishes.administrator_password)
    pattern = wishes.computer_name or NAME_PATTERN
    check_computer_name(make_name(pattern, instance, random.Random(0)))
    return MachineRequest(
        image=image,
        image_key=key or None,
        answer_file=read_answer_file(answer_file, recipe.os) if answer_file else None,
        data_disks=tuple(wishes.data_disks.values()),
        memory_mb=wishes.memory_mb,
        cpus=wishes.cpus,
        network="nat" if network == "nat" else "none",
        computer_name=pattern,
        administrator_password=wishes.administrator_password,
        certificates=tuple(loaded),
        local_resources=resources,
        instance=instance,
        connect=connect,
        settings=dict(service.settings) if service else {},
        secret_settings=service.secrets if service else (),
        warnings=(*(warning for item in loaded for warning in item.warnings), *wishes.warnings),
        notes=tuple(wishes.notes),
    )


def tell_machine(request: MachineRequest) -> None:
    """Warnings and notes about a machine, for commands whose reports tell nothing of it."""
    for text in (*request.warnings, *request.notes):
        click.echo(f"vmrole: {text}", err=True)


def read_service_of(
    definition: Path | None, configuration: Path | None, role: str | None, instance: int
) -> Service | None:
    """What the two documents say of one role. Raises UsageError and PackageError as ``read_service`` does."""
    if definition is None:
        if configuration is not None:
            raise UsageError(
                f"{configuration} configures a role that nothing defines", hint="add --service-definition X.csdef"
            )
        if role is not None:
            raise UsageError(
                "--service-role names a role that nothing defines", hint="add --service-definition X.csdef"
            )
        return None
    from harness.package.service import read_service

    service = read_service(definition, configuration, role)
    if configuration is not None and instance > service.instances:
        raise UsageError(
            f"{configuration} has {service.instances} instances, and instance {instance} is asked for",
            hint="choose a smaller --instance",
        )
    return service


def placed(loaded: list[Certificate], service: Service) -> list[Certificate]:
    """The certificates in the stores that the service definition declares for their thumbprints.

    Raises UsageError when a declared certificate has no file among ``loaded``.
    """
    by_thumbprint = {certificate.thumbprint: certificate for certificate in loaded}
    result = []
    declared = set()
    for wanted in service.certificates:
        if wanted.thumbprint is None:
            continue
        found = by_thumbprint.get(wanted.thumbprint)
        if found is None:
            raise UsageError(
                f"the certificate {wanted.name} ({wanted.thumbprint}) of the service configuration has no file",
                hint="give it with --certificate FILE",
            )
        declared.add(wanted.thumbprint)
        result.append(replace(found, store=wanted.store))
    return [*result, *(item for item in loaded if item.thumbprint not in declared)]


def wanted_resources(service: Service, given: tuple[LocalResource, ...]) -> list[LocalResource]:
    """The definition's local resources but those that --local-resource takes the place of."""
    from harness.run.answer import LocalResource

    names = {resource.name.casefold() for resource in given}
    wanted = service.local_resources
    return [LocalResource(item.name, item.size_mb, item.clean) for item in wanted if item.name.casefold() not in names]


def read_answer_file(path: Path, os: str) -> bytes:
    """The user's answer file, checked. Raises UsageError, also when the guest is no Windows."""
    from harness.run.windows.unattend import MAX_FILE, check_user_file

    if os != "windows":
        raise UsageError(f"{path} is an answer file of Windows, and the guest is {os}", hint="leave --answer-file out")
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        check_user_file(data)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint) from None
    return data


def read_secret(path: Path) -> str:
    """The first line of a file that holds a password. Raises UsageError when there is none."""
    from harness.package.parameters import decode_text

    try:
        with path.open("rb") as stream:
            data = stream.read(_SECRET_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _SECRET_BYTES:
        raise UsageError(f"{path} has more than {_SECRET_BYTES} bytes", hint="its first line is the password")
    line = decode_text(data, str(path)).split("\n")[0].rstrip("\r")
    if not line:
        raise UsageError(f"{path} is empty", hint="its first line is the password")
    return line
