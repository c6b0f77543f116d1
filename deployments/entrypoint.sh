#!/bin/sh
# Flags go to the pipeline; anything else is a command of its own, as Prefect's workers send it.
case "${1:---}" in
    -*) set -- python /app/flows/main.py "$@" ;;
esac
exec "$@"
