@echo off
rem The installed file and the registry value prove the installation.
if not exist "%ProgramFiles%\VM Role Sample\hello.txt" exit /b 1
type "%ProgramFiles%\VM Role Sample\hello.txt"
reg query "HKLM\SOFTWARE\VM Role Sample" /v Greeting
if errorlevel 1 exit /b 2
exit /b 0
