# SPDX-License-Identifier: Apache-2.0
# Instances of the classes that the stand-in guest can tell of, with properties of
# https://learn.microsoft.com/windows/win32/cimwin32prov; nothing of others.

function Get-Known([string] $Class) {
    switch ($Class) {
        'Win32_OperatingSystem' {
            $system = Get-ItemProperty 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
            $memory = [GC]::GetGCMemoryInfo()
            [pscustomobject]@{
                PSTypeName = 'Microsoft.Management.Infrastructure.CimInstance#root/cimv2/Win32_OperatingSystem'
                Caption = $system.ProductName; Version = [Environment]::OSVersion.Version.ToString(3)
                BuildNumber = "$([Environment]::OSVersion.Version.Build)"; CSName = $env:COMPUTERNAME
                OSArchitecture = '64-bit'; ProductType = [uint32]3; ServicePackMajorVersion = [uint16]0
                SystemDirectory = [Environment]::SystemDirectory; WindowsDirectory = $env:SystemRoot; SystemDrive = $env:SystemDrive
                LocalDateTime = [datetime]::Now; LastBootUpTime = [datetime]::Now.AddMilliseconds(-[Environment]::TickCount64)
                TotalVisibleMemorySize = [uint64]($memory.TotalAvailableMemoryBytes / 1KB)
                FreePhysicalMemory = [uint64](($memory.TotalAvailableMemoryBytes - $memory.MemoryLoadBytes) / 1KB)
                CurrentTimeZone = [int16][TimeZoneInfo]::Local.BaseUtcOffset.TotalMinutes; Locale = '0409'; Status = 'OK'
            }
        }
        'Win32_ComputerSystem' {
            [pscustomobject]@{
                PSTypeName = 'Microsoft.Management.Infrastructure.CimInstance#root/cimv2/Win32_ComputerSystem'
                Name = $env:COMPUTERNAME; DNSHostName = [Net.Dns]::GetHostName(); Domain = 'WORKGROUP'; Workgroup = 'WORKGROUP'
                PartOfDomain = $false; DomainRole = [uint16]2; NumberOfProcessors = [uint32]1
                NumberOfLogicalProcessors = [uint32][Environment]::ProcessorCount; SystemType = 'x64-based PC'
                TotalPhysicalMemory = [uint64][GC]::GetGCMemoryInfo().TotalAvailableMemoryBytes; UserName = $null; Status = 'OK'
            }
        }
        'Win32_LogicalDisk' {
            foreach ($drive in [IO.DriveInfo]::GetDrives()) {
                if (-not $drive.IsReady -or $drive.Name -notmatch '^[C-Y]:') { continue }
                [pscustomobject]@{
                    PSTypeName = 'Microsoft.Management.Infrastructure.CimInstance#root/cimv2/Win32_LogicalDisk'
                    DeviceID = $drive.Name.Substring(0, 2); Name = $drive.Name.Substring(0, 2); VolumeName = $drive.VolumeLabel
                    DriveType = [uint32]$drive.DriveType; FileSystem = $drive.DriveFormat
                    Size = [uint64]$drive.TotalSize; FreeSpace = [uint64]$drive.TotalFreeSpace
                }
            }
        }
    }
}

# Those that a call asks for. Ends the process where it asks for more than is known.
function Find-Known($Invocation, [string] $Class, [string] $Filter, [string] $Query) {
    if ($Query -match '^\s*select\s+.+?\s+from\s+(\w+)\s*(?:where\s+(.+))?$') { $Class, $Filter = $Matches[1], $Matches[2] }
    $found = @(Get-Known $Class)
    if (-not $found) { Stop-Unavailable $Invocation " $Class" }
    if ($Filter) {
        if ($Filter -notmatch '^\s*(\w+)\s*=\s*[''"]?([^''"]*)[''"]?\s*$') { Stop-Unavailable $Invocation " $Class where $Filter" }
        $name, $value = $Matches[1], $Matches[2]
        $found = $found | Where-Object { "$($_.$name)" -eq $value }
    }
    $found
}
