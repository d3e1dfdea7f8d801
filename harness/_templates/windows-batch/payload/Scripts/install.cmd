@echo off
rem Runs as SYSTEM in this folder. Exit code 0 is success, 3010 restarts the machine, anything else fails the deployment.
echo %1, this is $name
exit /b 0
