#!/bin/sh
# Starts MLflow's tracking server for a cluster: runs in a database, files through the server itself, so that workers and
# people need no access to the store behind it. Settings come from the environment; cluster/README.md says which.
set -eu
umask 077  # the database and the files are the server's own

set -- --host "${TRACKING_HOST:-127.0.0.1}" --port "${TRACKING_PORT:-5000}" --workers "${TRACKING_WORKERS:-4}" \
    --backend-store-uri "${TRACKING_STORE:-sqlite:///mlflow.db}" \
    --serve-artifacts --artifacts-destination "${TRACKING_ARTIFACTS:-./mlartifacts}"
if [ -n "${TRACKING_NAMES:-}" ]; then # host names that it is reached by
    set -- "$@" --allowed-hosts "$TRACKING_NAMES"
fi
export MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
exec "${TRACKING_PYTHON:-python3}" -m mlflow server "$@"
