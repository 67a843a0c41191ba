#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Rankings of a network on three tasks with two seeds each, and how alike they are (MeDyate, fig. 3).
#
#   sh tools/studies/rankings.sh MODEL DATA OUT
#
# DATA holds the folders of the tasks.
set -eu
model=$1
data=$2
out=$3
for task in flowers17 dogcat cub10; do
    for seed in 0 1; do
        file="$out/$task-$seed.json"
        test -e "$file" || medyate rank "$model" --data "$data/$task" --seed "$seed" -o "$file"
    done
done
medyate rank --compare "$out"/*.json -o "$out/rankings.png"
