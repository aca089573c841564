#!/usr/bin/env bash
# The whole computed set in the order of its cost; the same command goes on where it was cut.
#   queue.sh FOLDER PSEUDO
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
run() { "$here/compute.sh" "$folder" "$pseudo" "$@"; }
folder=$1 pseudo=$2
run quick Al Pb Cu V
run standard Al
run quick Ta Nb MgB2 NbC
run standard Pb Ta Nb V
