# Called once with 3010 as its end, and what it started goes on in after-restart.ps1.
param(
    [Parameter(Mandatory)] [string] $Greeting,
    [Parameter(Mandatory)] [string] $Account,
    [Parameter(Mandatory)] [string] $Thumbprint
)
$ErrorActionPreference = 'Stop'

# A credential is user:password; the password may have colons.
$user, $password = $Account -split ':', 2
$credential = [pscredential]::new($user, (ConvertTo-SecureString $password -AsPlainText -Force))

$folder = 'C:\Resources\Data\app'
New-Item $folder -ItemType Directory -Force | Out-Null
@{ greeting = $Greeting; user = $credential.UserName } | ConvertTo-Json | Set-Content "$folder\settings.json" -Encoding ascii

New-Item 'HKLM:\SOFTWARE\VM Role PowerShell' -Force | Out-Null
Set-ItemProperty 'HKLM:\SOFTWARE\VM Role PowerShell' -Name Greeting -Value $Greeting
New-ItemProperty 'HKLM:\SOFTWARE\VM Role PowerShell' -Name Restarts -Value 1 -PropertyType DWord -Force | Out-Null

$store = [Security.Cryptography.X509Certificates.X509Store]::new('My', 'LocalMachine')
$store.Open('ReadOnly')
$found = $store.Certificates | Where-Object Thumbprint -eq $Thumbprint
$store.Close()
if (-not $found) { throw "there is no certificate $Thumbprint" }
"certificate $($found.Subject)"

$msi = Join-Path $PSScriptRoot 'hello.msi'
$process = Start-Process msiexec.exe -ArgumentList '/i', "`"$msi`"", '/qn', '/norestart' -Wait -PassThru
if ($process.ExitCode -notin 0, 3010) { throw "msiexec ended with $($process.ExitCode)" }
"installed: $(Get-Content 'C:\Program Files\VM Role Sample\hello.txt')"

New-Service -Name VmRoleSample -BinaryPathName 'C:\Windows\System32\msiexec.exe /V' -StartupType Manual | Out-Null
"service $((Get-Service VmRoleSample).Status)"

'restarting'
exit 3010
