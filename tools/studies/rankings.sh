#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Rankings of one network on three tasks with two seeds each, and how alike they are (MeDyate, fig. 3).
#
#   sh tools/studies/rankings.sh SHARED OUT
set -eu
shared=$1
out=$2
for task in flowers17 dogcat cub10; do
    for seed in 0 1; do
        file="$out/$task-$seed.json"
        test -e "$file" || medyate rank "$shared/models/mbv2-w0.35.pkl" --data "$shared/data/$task" --seed "$seed" -o "$file"
    done
done
medyate rank --compare "$out"/*.json -o "$out/rankings.png"
