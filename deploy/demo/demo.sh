#!/bin/sh
# The demo: make three hospitals' DICOM archives, train on them in one federation, report.
#   deploy/demo/demo.sh [FOLDER] [SEED] [CHAOS]     from the project's root, with nognet on PATH
# With CHAOS, such as "drop:hospital_b@3, nan:hospital_c@2", sites fail on purpose, and what that did
# and cost is printed beside a run without.
set -eu
folder=${1:-data/demo}
seed=${2:-1}
chaos=${3:-}
here=$(dirname "$0")

nognet phantom --sites 3 --patients 24 --seed "$seed" --out "$folder" --force
# all three at once: on few cores they share them evenly, and none waits for a second turn
nognet-sim --study "$here/study.yaml" --workers 3 ${chaos:+--chaos "$chaos"} \
    --sites "$folder"/hospital_*/site.yaml
