#!/bin/sh
# Look for what the fabric promises an instance: certificates, local resources, the payload.
status=0
for folder in /var/lib/waagent /resources "$VMROLE_PAYLOAD"; do
    if [ -d "$folder" ]; then
        echo "found $folder: $(ls -A "$folder" | tr '\n' ' ')"
    else
        echo "$folder is missing" >&2
        status=1
    fi
done
[ -s /var/lib/hello-linux/greeting ] || { echo "the greeting is missing" >&2; status=1; }
exit $status
