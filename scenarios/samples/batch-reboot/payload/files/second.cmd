@echo off
rem What was on the disk is still there, what was in memory is not.
if not exist C:\VMRole\before.txt exit /b 1
type C:\VMRole\before.txt
echo after the restart
