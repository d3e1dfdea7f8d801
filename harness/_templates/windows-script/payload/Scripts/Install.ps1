# Runs as SYSTEM in this folder. Exit code 0 is success, 3010 restarts the machine, anything else fails the deployment.
param(
    [Parameter(Mandatory)] [string] $$Greeting
)
$$ErrorActionPreference = 'Stop'
Write-Output "$$Greeting, this is $name"
exit 0
