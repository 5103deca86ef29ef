#!/bin/bash
# The same command on two machines, by hand. On the first one:
#     bash two-machines.sh 0
# and on the second, within half an hour (--rank-timeout):
#     bash two-machines.sh 1
# Ctrl-C on either of them stops both after the update in hand; with --resume --name NAME both go on.
set -euo pipefail

RANK=$1
MAIN=10.0.0.1:29500               # change: address of the first machine, and a free port that is open to the other
GPUS=16                           # change: over both machines
RUNS=/shared/reft-runs            # change: a folder that both see

exec reft rl gsm8k-warmup --recipe codellama-7b/gsm8k-pcot --name gsm8k-rl \
    --launch zero2 --processes "$GPUS" --machines 2 --machine-rank "$RANK" --main-address "$MAIN" --runs-dir "$RUNS"
