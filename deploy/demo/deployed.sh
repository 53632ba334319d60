#!/bin/sh
# The demo as it is deployed: a coordinator and three hospitals, processes over TLS on this machine.
#   deploy/demo/deployed.sh [FOLDER] [SEED] [CHAOS]     from the project's root, with nognet on PATH
# With CHAOS, such as "drop:hospital_b@3, nan:hospital_c@2", it is a rehearsal: sites fail on
# purpose, then the study runs without faults, and what the faults did and cost is printed.
set -eu
folder=${1:-data/demo}
seed=${2:-1}
chaos=${3:-}
here=$(dirname "$0")
port=${NOGNET_DEMO_PORT:-9443}
rehearsal=false
[ -z "$chaos" ] || rehearsal=true

nognet phantom --sites 3 --patients 24 --seed "$seed" --out "$folder" --force
rm -rf "$folder/pki" "$folder/server-state"
nognet provision coordinator --out "$folder/pki" --host 127.0.0.1
grep -v '^runs:' "$here/study.yaml" > "$folder/study.yaml"
cat >> "$folder/study.yaml" << END
rehearsal: $rehearsal
runs: runs
server:
  listen: 127.0.0.1:$port
  control_port: $((port + 1))
  ca: pki/ca.crt
  certificate: pki/server.crt
  key: pki/server.key
  sites: pki/sites
END
for site in "$folder"/hospital_*; do
    name=$(basename "$site")
    rm -rf "$site/keys" "$site/deployed-state"
    nognet provision site --name "$name" --out "$site/keys"
    nognet provision register --sites "$folder/pki/sites" "$site/keys/$name.pub"
    sed -e "s/^  address: .*/  address: 127.0.0.1:$port/" -e 's/^state: .*/state: deployed-state/' \
        "$site/site.yaml" > "$site/deployed.yaml"
    echo "rehearsal: $rehearsal" >> "$site/deployed.yaml"
    nognet prepare --site "$site/deployed.yaml"
done

started=
trap '[ -z "$started" ] || kill $started 2> /dev/null || true' EXIT
trap 'exit 130' INT TERM

# run [--chaos CHAOS]: the whole study; its exit code is left in $code, its folder in $run
run() {
    nognet-server --study "$folder/study.yaml" &
    server=$!
    started=$server
    clients=
    for site in "$folder"/hospital_*; do
        nognet-client --site "$site/deployed.yaml" "$@" &
        clients="$clients $!"
    done
    started="$server $clients"
    code=0
    wait "$server" || code=$?
    kill $clients 2> /dev/null || true
    for client in $clients; do wait "$client" || true; done
    started=
    [ "$code" -ne 130 ] || exit 130
    run=$(ls -td "$folder"/runs/demo* | head -n 1)
}

if [ -z "$chaos" ]; then
    run
    exit "$code"
fi
run --chaos "$chaos"
faulty=$run
echo "the same study without faults, to compare"
run
nognet-server rehearsal --run "$faulty" --calm "$run"
