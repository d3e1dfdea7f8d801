# SPDX-License-Identifier: Apache-2.0
# Times are texts of WMI, unlike those of Get-CimInstance.
function Get-WmiObject {
    [CmdletBinding()]
    param(
        [Parameter(Position = 0)] [Alias('ClassName')] [string] $Class,
        [Parameter(Position = 1)] [string[]] $Property, [string] $Filter, [string] $Query,
        [Alias('NS')] [string] $Namespace, [Alias('CN')] [string[]] $ComputerName, $Credential, [switch] $List
    )
    if ($List -or $Credential -or ($Namespace -and $Namespace -notmatch '^root[\\/]cimv2$')) {
        Stop-Unavailable $MyInvocation " $Class"
    }
    foreach ($one in Find-Known $MyInvocation $Class $Filter $Query) {
        foreach ($member in $one.PSObject.Properties) {
            if ($member.Value -is [datetime]) {
                $member.Value = $member.Value.ToUniversalTime().ToString('yyyyMMddHHmmss.ffffff') + '+000'
            }
        }
        $one
    }
}
