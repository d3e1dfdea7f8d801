@echo off
rem 3010 asks for a restart; the platform restarts the machine and goes on with the next script.
if not exist C:\VMRole mkdir C:\VMRole
echo before the restart>C:\VMRole\before.txt
echo asking for a restart
exit /b 3010
