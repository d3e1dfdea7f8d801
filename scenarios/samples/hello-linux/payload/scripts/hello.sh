#!/bin/sh
# Say the greeting, and leave it where it can be found. $1 is the greeting.
set -eu

echo "$1 from $(uname -n)"
echo "(this line went to standard error, which is no failure on Linux)" >&2

mkdir -p /var/lib/hello-linux
echo "$1" >/var/lib/hello-linux/greeting
