# SPDX-License-Identifier: Apache-2.0
# In the scope of each module of missing.txt: what its commands do, which the stand-in guest does not have.

$Shared = 'C:\Program Files\PowerShell\StandIn'
$UnavailableLog = 'C:\windows\vmrole-unavailable.log'
$WantedList = 'C:\windows\vmrole-pretend.txt'
$CallLog = 'C:\windows\vmrole-pretended.log'

# "NAME (install.ps1, line 12)".
function Get-Place($Invocation, [string] $What) {
    $name = "$($Invocation.MyCommand.Name)$What"
    $file = [IO.Path]::GetFileName("$($Invocation.ScriptName)")
    if ($file) { "$name ($file, line $($Invocation.ScriptLineNumber))" } else { $name }
}

# Ends the process, as neither try nor an error action may hide that something is missing.
function Stop-Unavailable($Invocation, [string] $What) {
    $place = Get-Place $Invocation $What
    [Console]::Error.WriteLine("$place is not available on the stand-in guest")
    [IO.File]::AppendAllText($UnavailableLog, "$place`n")
    [Environment]::Exit(9150)
}

# The files of those of $Names that have an answer here, or that the user wants pretended: with modules of his own first.
function Get-Answers([string[]] $Names) {
    $pretended = if ([IO.File]::Exists($WantedList)) { [IO.File]::ReadAllLines($WantedList) } else { @() }
    foreach ($name in $Names) {
        $folders = if ($pretended -contains $name) { 'C:\windows\vmrole-modules\answers', "$Shared\pretended" } else { "$Shared\answered" }
        foreach ($folder in $folders) {
            if ([IO.File]::Exists("$folder\$name.ps1")) { "$folder\$name.ps1"; break }
        }
    }
}

$Own = @{}
$Modules = @{}

# The user's function $Name as one that tells of its calls. A module that cannot be had is like one that is missing.
function Get-Proxy([string] $Name, [string] $Path) {
    # Once: its functions come to this scope with it, and would take the place of those made from them.
    try { $module = $Modules[$Path] ??= Import-Module $Path -PassThru -DisableNameChecking -ErrorAction Stop }
    catch { return { Stop-Unavailable $MyInvocation ' of a pretended module that cannot be imported' } }
    $command = $module.ExportedFunctions[$Name]
    if (-not $command) { return { Stop-Unavailable $MyInvocation ', which its pretended module does not export,' } }
    $data = [Management.Automation.CommandMetadata]::new($command)
    $text = [Management.Automation.ProxyCommand]::Create($data, '', $false)
    # By a name it would find us.
    $Own[$Name] = $command
    $text = $text -replace '\$wrappedCmd = .*', "`$wrappedCmd = `$Own['$Name']"
    $text = $text -replace '(?m)^begin\s*\{', "begin {`n Write-Pretended `$MyInvocation `$PSBoundParameters`n"
    $ExecutionContext.SessionState.Module.NewBoundScriptBlock([scriptblock]::Create($text))
}

# A line of JSON: the command, where it was called, and what it was given.
function Write-Pretended($Invocation, $Bound) {
    $given = [ordered]@{}
    foreach ($pair in $Bound.GetEnumerator()) {
        $given[$pair.Key] = if ($pair.Key -match 'password') { '__**__' }
        elseif ($pair.Value -is [array]) { , @(foreach ($value in $pair.Value) { Get-Text $value }) }
        else { Get-Text $pair.Value }
    }
    $call = [ordered]@{
        command = $Invocation.MyCommand.Name
        parameters = $given
        file = [IO.Path]::GetFileName("$($Invocation.ScriptName)")
        line = $Invocation.ScriptLineNumber
    }
    [IO.File]::AppendAllText($CallLog, "$($call | ConvertTo-Json -Compress -Depth 3)`n")
}

function Get-Text($Value) {
    if ($Value -is [pscredential]) { return $Value.UserName }
    if ($Value -is [securestring]) { return '__**__' }
    if ($Value -is [switch]) { return [bool]$Value }
    if ($Value -is [bool] -or $Value -is [int] -or $Value -is [long]) { return $Value }
    "$Value"
}

. "$Shared\known.ps1"
