@echo off
rem The installed file and the registry value prove the installation.
type "%ProgramFiles%\VM Role Sample\hello.txt" || exit /b 1
reg query "HKLM\SOFTWARE\VM Role Sample" /v Greeting || exit /b 2
