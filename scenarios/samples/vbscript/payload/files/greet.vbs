' What scripts of the time do: files, the registry, WMI, an exit code.
Option Explicit
Dim shell, files, stream, systems, system
Set shell = CreateObject("WScript.Shell")
Set files = CreateObject("Scripting.FileSystemObject")
If WScript.Arguments.Count <> 1 Then
    WScript.Echo "greet.vbs GREETING"
    WScript.Quit 2
End If
shell.RegWrite "HKLM\SOFTWARE\VM Role Sample\Greeting", WScript.Arguments(0), "REG_SZ"
WScript.Echo shell.RegRead("HKLM\SOFTWARE\VM Role Sample\Greeting")
Set stream = files.CreateTextFile("C:\Resources\DiagnosticStore\greeting.txt", True)
stream.WriteLine WScript.Arguments(0)
stream.Close
Set systems = GetObject("winmgmts:\\.\root\cimv2").ExecQuery("SELECT * FROM Win32_OperatingSystem")
For Each system In systems
    WScript.Echo "Windows " & system.Version
Next
WScript.Quit 0
