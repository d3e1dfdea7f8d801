# Runs as SYSTEM in this folder. Exit code 0 is success, 3010 restarts the machine, anything else fails the deployment.
param(
    [Parameter(Mandatory)] [string] $$Greeting
)
# An error ends the script with exit code 1, instead of a line of output.
$$ErrorActionPreference = 'Stop'
$$restart = $$false

# A program that fails ends no script: what it ended with is looked at here.
function Invoke-Program([string] $$Path, [string[]] $$Arguments) {
    $$ended = Start-Process -FilePath $$Path -ArgumentList $$Arguments -Wait -PassThru -NoNewWindow
    if ($$ended.ExitCode -in 1641, 3010) { $$script:restart = $$true }
    elseif ($$ended.ExitCode -ne 0) { throw "$$Path ended with exit code $$($$ended.ExitCode)" }
}

Write-Output "$$Greeting, this is $name"
# Invoke-Program msiexec.exe '/i', 'product.msi', '/qn', '/norestart'

if ($$restart) { exit 3010 }
exit 0
