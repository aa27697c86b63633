#!/bin/sh
# Everything about speed that a GPU can tell, in under 9 minutes on one H200.
#
#     benchmarks/gpu.sh FOLDER            # on a GPU
#     benchmarks/gpu.sh FOLDER small      # the same steps on a CPU, tiny, to see that they run
#
# Installs nothing and fetches nothing. Needs, for the interpreter in $PYTHON (python): this
# repository's root as the working folder, torch and torchvision (2.11 with 0.26, or newer ones that
# match), and what geo-retina itself needs: rasterio, timm, safetensors, numpy, pyproj, shapely,
# pyogrio, pyarrow, geopandas, dask, distributed, filelock, psutil, affine, scipy; for the first step
# pytest and hypothesis. torch.compile needs a C compiler and is left out where there is none.
# Each step leaves its JSON in FOLDER as it ends, and has a limit of its own, so that a slow one
# costs only itself; the exit code is 1 where any step failed.
set -u
folder=${1:?folder for the results}
mode=${2:-gpu}
python=${PYTHON:-python}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$folder" || exit 1
worst=0

step() { # seconds, name, command...
    limit=$1 name=$2
    shift 2
    echo "== $name"
    timeout "$limit" "$@" >"$folder/$name.log" 2>&1
    code=$?
    tail -n 30 "$folder/$name.log"
    if [ $code -ne 0 ]; then
        echo "$name ended with $code"
        worst=1
    fi
}

measure() { # seconds, name of the script, arguments...
    limit=$1 name=$2
    shift 2
    step "$limit" "$name" "$python" "benchmarks/${name%%-*}.py" "$@" --out "$folder/$name.json"
}

if [ "$mode" = small ]; then
    measure 120 network --model small --tile 64 --batch 2 --precision fp32 \
        --layout channels_last --repeats 1
    measure 60 decode --model small --tile 64 --candidates 0 50 --repeats 1
    measure 120 read --size 512 --block 256 --layout tiled-zstd striped-deflate --readers 1 --repeats 1
    measure 120 end_to_end --size 512 --repeats 1 --bare-repeats 1
    exit $worst
fi

"$python" -c 'import torch; print(torch.cuda.get_device_name()); torch.zeros(1).cuda()' || exit 1
step 90 tests "$python" -m pytest -q -p no:cacheprovider tests/gpu
measure 50 network --device cuda --tile 1024 --batch 4 16 --precision bf16 \
    --layout channels_last --repeats 10
measure 40 network-layouts --device cuda --tile 1024 --batch 8 --precision fp32 bf16 fp16 --repeats 5
measure 30 decode --device cuda --batch 16 --repeats 10
measure 60 read --size 16384 --layout tiled-zstd tiled-none --readers 1 4 16 --repeats 1
measure 90 end_to_end-small --device cuda --size 16384 --readers 12 --repeats 2
measure 90 end_to_end-paper --device cuda --size 16384 --readers 12 --repeats 2 --model paper
# Last, as compiling takes long.
if command -v cc >/dev/null 2>&1; then
    measure 80 network-compiled --device cuda --tile 1024 --batch 16 --precision bf16 \
        --layout channels_last --runtime compile --repeats 10
fi
exit $worst
