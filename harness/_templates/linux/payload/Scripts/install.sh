#!/bin/sh
# Runs once as root, without a terminal. A failure is logged as a warning; it does not fail the deployment.
set -eu
echo "$$1, this is $name"
