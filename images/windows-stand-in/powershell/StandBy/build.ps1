# SPDX-License-Identifier: Apache-2.0
# Compiles StandBy.cs beside this with the engine itself, against what its own Add-Type compiles against.
$ErrorActionPreference = 'Stop'
$libraries = @(Get-ChildItem "$PSHOME\ref\*.dll") + @('Microsoft.PowerShell.ConsoleHost', 'System.Management.Automation' |
        ForEach-Object { Get-Item "$PSHOME\$_.dll" })
Add-Type -Path "$PSScriptRoot\StandBy.cs" -OutputAssembly "$PSScriptRoot\StandBy.dll" `
    -ReferencedAssemblies $libraries.FullName -CompilerOptions '/unsafe', '/nullable:enable', '/optimize+'
