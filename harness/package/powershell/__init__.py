# SPDX-License-Identifier: Apache-2.0
"""PowerShell as text: command lines and scripts are looked at, and nothing of a package is ever executed.

invocation   a command line taken apart as powershell.exe and pwsh do
commands     findings about command lines
source       the bytes of a script as each engine reads them, and where its code, strings and comments are
versions     what Windows PowerShell 5.1 and PowerShell 7 do not read alike
engine       the real parser, where this computer has a PowerShell 7
check        findings about the commands and scripts of a package
"""
