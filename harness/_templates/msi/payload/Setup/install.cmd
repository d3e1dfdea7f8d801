@echo off
rem Put your installer beside this file as setup.msi. Its exit codes 1641 and 3010 restart the machine.
if not exist "%~dp0setup.msi" (
  echo setup.msi is not in the payload 1>&2
  exit /b 2
)
"%WINDIR%\System32\msiexec.exe" /i "%~dp0setup.msi" /qn /norestart /l*v c:\VMRole\Log\$name.log INSTALLDIR="%~1"
exit /b %ERRORLEVEL%
