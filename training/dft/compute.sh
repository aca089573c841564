#!/usr/bin/env bash
# Computes the set one crystal after the other, each in its own folder; the same command goes on where it was cut.
#   compute.sh FOLDER PSEUDO TIER NAME...
# Needs `onnes` and Quantum ESPRESSO on the PATH. A crystal that fails does not hold up the next one.
set -uo pipefail
folder=$1 pseudo=$2 tier=$3
shift 3
here=$(cd "$(dirname "$0")" && pwd)
test -d "$folder/structures" || python "$here/structures.py" "$folder/structures"
for name in "$@"; do
  echo "== $name $tier $(date -u +%FT%TZ)"
  onnes verify "$folder/structures/$name.cif" --tier "$tier" --pseudo "$pseudo" --out "$folder/$name/$tier"
done
