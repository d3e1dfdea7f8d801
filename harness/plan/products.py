# SPDX-License-Identifier: Apache-2.0
"""Command lines for SQLProfile, SQLDacApplications and WebDeployApplications.

What the platform really started is in no source. The members of the documents [DOC dn249740, dn249754, dn249738] have
their counterparts in the products' own tools, and these are written here: setup.exe /ACTION=CompleteImage, which
completes a prepared image; SqlPackage.exe; sqlcmd.exe; msdeploy.exe. All of it is [INFER].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.plan.line import Line

if TYPE_CHECKING:
    from harness.package.models import SqlDacApplication, SqlDeployment, SqlScriptCommand, WebDeployApplication
    from harness.package.parameters import Parameters


def sql_setup(deployment: SqlDeployment, parameters: Parameters, configuration: str | None) -> Line:
    """SQL Server's setup on a prepared image; ``configuration`` is the file of SQLConfigurationPayloadId."""
    line = Line(parameters).value("", _setup(deployment.media_source, parameters))
    line.add("/QUIET /ACTION=CompleteImage /IACCEPTSQLSERVERLICENSETERMS")
    line.value("/INSTANCENAME=", deployment.instance_name).value("/INSTANCEID=", deployment.instance_id)
    line.value("/PID=", deployment.product_key, secret=True)
    if (deployment.sql_authentication_type or "").strip().lower().startswith("sql"):
        line.add("/SECURITYMODE=SQL").value("/SAPWD=", deployment.sa_password, secret=True)
    line.value("/SQLSYSADMINACCOUNTS=", deployment.sql_sys_admin_member_list)
    line.flag("/TCPENABLED=", deployment.enable_tcp, "1", "0")
    line.flag("/NPENABLED=", deployment.enable_named_pipes, "1", "0")
    line.account("/SQLSVCACCOUNT=", "/SQLSVCPASSWORD=", deployment.sql_service_credential)
    line.account("/AGTSVCACCOUNT=", "/AGTSVCPASSWORD=", deployment.sql_agent_service_credential)
    line.account("/RSSVCACCOUNT=", "/RSSVCPASSWORD=", deployment.sql_reporting_service_credential)
    if configuration:
        line.add(f'/CONFIGURATIONFILE="{configuration}"')
    return line


def _setup(source: str | None, parameters: Parameters) -> str:
    """The seed's MediaSource is a program, that of Microsoft's example a folder [DOC Add-SCSQLDeployment]."""
    filled = parameters.fill(source or "")
    if not source or filled.unresolved or filled.text.strip().lower().endswith((".exe", ".cmd", ".bat")):
        return source or "setup.exe"
    return source.rstrip("\\/") + "\\setup.exe"


def web_deploy(web: WebDeployApplication, parameters: Parameters, package: str) -> Line:
    """Web Deploy's synchronisation of a package with the local server."""
    line = Line(parameters).add(f'msdeploy.exe -verb:sync -source:package="{package}"')
    if web.package_password:
        # one argument: the option follows its comma without a blank
        inner = Line(parameters).value(",encryptPassword=", web.package_password, secret=True)
        line.text, line.masked = line.text + inner.text, line.masked + inner.masked
        line.unresolved.update(inner.unresolved)
    line.add("-dest:auto")
    for item in web.web_deploy_parameters:
        name = Line(parameters).value("-setParam:name=", item.parameter_name)
        value = Line(parameters).value(",value=", item.value)
        line.text += f" {name.text}{value.text}"
        line.masked += f" {name.masked}{value.masked}"
        line.unresolved.update(name.unresolved | value.unresolved)
    return line


def dac_publish(dac: SqlDacApplication, parameters: Parameters, package: str) -> Line:
    """Publishing a data-tier application."""
    line = Line(parameters).add(f'SqlPackage.exe /Action:Publish /SourceFile:"{package}"')
    line.value("/TargetServerName:", dac.sql_instance).value("/TargetDatabaseName:", dac.dac_instance)
    if sql_login(dac.sql_authentication_type):
        line.account("/TargetUser:", "/TargetPassword:", dac.sql_deployment_credential)
    line.flag("/p:BlockOnPossibleDataLoss=", dac.ignore_data_loss, "False", "True")
    line.flag("/p:BlockWhenDriftDetected=", dac.block_on_changes, "True", "False")
    line.flag("/p:IncludeTransactionalScripts=", dac.rollback_on_failure, "True", "False")
    return line


def dac_uninstall(dac: SqlDacApplication, parameters: Parameters) -> Line | None:
    """What UninstallMode says [VMM cmdlet help]; None when nothing is to be done: no mode, or MakeUnmanaged, which
    only forgets the registration."""
    mode = (dac.uninstall_mode or "").strip().lower()
    name = parameters.fill(dac.dac_instance or "")
    bracketed = Line(parameters)
    texts = (name.text, name.masked)
    # a name that is not known yet is shown as it is written
    bracketed.text, bracketed.masked = texts if name.unresolved else (text.replace("]", "]]") for text in texts)
    bracketed.unresolved.update(dict.fromkeys(name.unresolved))
    statement = {
        "dropdatabase": "DROP DATABASE [{}]",
        "detachdatabase": "EXEC sp_detach_db [{}]",
    }.get(mode)
    if statement is None:
        return None
    line = _sqlcmd(dac.sql_instance, dac.sql_authentication_type, dac.sql_deployment_credential, parameters)
    line.text += f' -Q "{statement.format(bracketed.text)}"'
    line.masked += f' -Q "{statement.format(bracketed.masked)}"'
    line.unresolved.update(bracketed.unresolved)
    return line


def sql_script(script: SqlScriptCommand, dac: SqlDacApplication, parameters: Parameters, file: str) -> Line:
    """sqlcmd on one file; without ``-b`` no error of it would ever be seen."""
    line = _sqlcmd(dac.sql_instance, script.sql_authentication_type, script.script_credential, parameters)
    line.value("-d ", script.database_name)
    line.value("-l ", _number(script.login_timeout_seconds), quote="")
    line.value("-t ", _number(script.execution_timeout_seconds), quote="")
    line.flag("", script.encrypt_connection, "-N", "").add(f'-i "{file}"')
    return line.value("-o ", script.output_file_path).verbatim(script.command_parameters)


def _sqlcmd(server: str | None, authentication: str | None, credential: object, parameters: Parameters) -> Line:
    line = Line(parameters).add("sqlcmd.exe -b").value("-S ", server)
    if sql_login(authentication):
        line.account("-U ", "-P ", credential)  # type: ignore[arg-type]
    else:
        line.add("-E")
    return line


def sql_login(authentication: str | None) -> bool:
    """WindowsAuthentication runs the tool as the credential's user; the other kind hands it to the server."""
    return (authentication or "").strip().lower().startswith("sql")


def _number(value: int | str | None) -> str | None:
    return None if value is None else str(value)
