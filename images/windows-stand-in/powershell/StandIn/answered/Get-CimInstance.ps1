# SPDX-License-Identifier: Apache-2.0
function Get-CimInstance {
    [CmdletBinding()]
    param(
        [Parameter(Position = 0)] [Alias('Class')] [string] $ClassName,
        [string] $Filter, [string] $Query, [string[]] $Property, [string] $Namespace, [Alias('CN')] [string[]] $ComputerName,
        $CimSession, [switch] $KeyOnly, [uint32] $OperationTimeoutSec, [Parameter(ValueFromPipeline)] $InputObject
    )
    if ($CimSession -or $InputObject -or ($Namespace -and $Namespace -notmatch '^root[\\/]cimv2$')) {
        Stop-Unavailable $MyInvocation " $ClassName"
    }
    Find-Known $MyInvocation $ClassName $Filter $Query
}
