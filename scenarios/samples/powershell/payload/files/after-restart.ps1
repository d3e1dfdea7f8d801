$ErrorActionPreference = 'Stop'
$key = Get-ItemProperty 'HKLM:\SOFTWARE\VM Role PowerShell'
$settings = Get-Content 'C:\Resources\Data\app\settings.json' -Raw | ConvertFrom-Json
if ($settings.greeting -ne $key.Greeting) { throw 'the settings are not those of before' }
Get-Service VmRoleSample | Out-Null
"after $($key.Restarts) restart: $($settings.greeting), $($settings.user)"
