# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Functions that quickstart.sh and test.sh share: find what is missing, install it, build, and set MPI's environment. Besides
# Debian's packages, ensure_cuda fetches NVIDIA's compiler, which test.sh insists on and quickstart.sh does without.
# Sourced after `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cores=$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN)
missing=()
missing_text=""

say()
{
    printf '%s\n' "== $*"
}

# need PACKAGE REASON TEST..: note the package if the test fails.
need()
{
    if ! "${@:3}" >/dev/null 2>&1; then
        missing+=("$1")
        missing_text+=$(printf '\n  %-20s %s' "$1" "$2")
    fi
}

cmake_is_new_enough()
{
    local version

    version=$(cmake --version | sed -n 's/^cmake version \([0-9.]*\).*/\1/p')
    [ "$(printf '%s\n' 3.25 "$version" | sort -V | head -n 1)" = 3.25 ]
}

# compiles COMPILER [OPTION..]: whether it makes a program; with -fopenmp, whether its OpenMP library is there.
compiles()
{
    local compiler=$1 directory code=0

    shift
    directory=$(mktemp -d)
    printf 'int main(void) { return 0; }\n' >"$directory/a.c"
    "$compiler" "$@" "$directory/a.c" -o "$directory/a.out" || code=1
    rm -r "$directory"
    return "$code"
}

# A python of its own that comes first on PATH may lack what the system's has; CMake looks in the same places.
numpy_is_there()
{
    python3 -c "import numpy" || /usr/bin/python3 -c "import numpy"
}

need_for_build()
{
    need gcc "C compiler with OpenMP" compiles cc -fopenmp
    need libc6-dev "C library" compiles cc
    need cmake "build, 3.25 or newer" cmake_is_new_enough
    need ninja-build "build" command -v ninja
    need pkg-config "finds inih, cJSON and cmocka" command -v pkg-config
    need libopenmpi-dev "MPI headers" command -v mpicc
    need openmpi-bin "mpirun" command -v mpirun
    need libinih-dev "config files" pkg-config --exists inih
    need libcjson-dev "records" pkg-config --exists libcjson
    need libhwloc-dev "cores near a GPU" pkg-config --exists hwloc
}

# Debian's own CUDA is too old for sm_90a, so the compiler comes as Python wheels.
need_for_cuda()
{
    need g++ "nvcc's host compiler" compiles c++
    if ! nvcc_is_there || ! nccl_is_there; then
        need python3 "fetches the CUDA compiler" command -v python3
        need python3-pip "fetches the CUDA compiler" python3 -m pip --version
    fi
}

need_for_tests()
{
    need libcmocka-dev "unit tests" pkg-config --exists cmocka
    need python3 "tests of the command" command -v python3
    need python3-numpy "the tests' reference" numpy_is_there
    need g++ "the header must be clean C++" compiles c++
}

# A Slurm that is there belongs to a cluster and is left as it is.
need_for_slurm()
{
    if ! command -v srun >/dev/null; then
        need slurmctld "the test under Slurm" command -v slurmctld
        need slurmd "the test under Slurm" command -v slurmd
        need slurm-client "the test under Slurm" command -v srun
    fi
    need iproute2 "networks for the hosts of that test" command -v ip
}

need_for_lint()
{
    need clang-tidy "lint" command -v clang-tidy
    need cppcheck "lint" command -v cppcheck
    need shellcheck "lint" command -v shellcheck
}

need_for_sanitizers()
{
    need libclang-rt-14-dev "thread sanitizer" compiles clang-14 -fsanitize=thread
    need clang-14 "thread sanitizer" command -v clang-14
    need libomp-14-dev "OpenMP that the thread sanitizer understands" compiles clang-14 -fopenmp
}

# missing_stop SENTENCE: say what is missing and stop.
missing_stop()
{
    printf '%s Missing, by the names Debian gives them:%s\n' "$1" "$missing_text" >&2
    exit 3
}

# look NEED_FOR..: fill missing and missing_text.
look()
{
    local needs

    missing=()
    missing_text=""
    for needs in "$@"; do
        "$needs"
    done
}

# ensure NEED_FOR..: install what is missing; stop with 3 where that cannot be done.
ensure()
{
    local id="" version="" as_root=()

    look "$@"
    if [ "${#missing[@]}" -eq 0 ]; then
        return
    fi
    if [ -r /etc/os-release ]; then
        id=$(sed -n 's/^ID=//p' /etc/os-release | tr -d '"')
        version=$(sed -n 's/^VERSION_ID=//p' /etc/os-release | tr -d '"')
    fi
    case "$id:$version" in
    debian:12 | ubuntu:24.04) ;;
    *) missing_stop "This is ${id:-an unknown system} $version; packages are installed on Debian 12 and Ubuntu 24.04 only." ;;
    esac
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || missing_stop "Packages are installed as root or with sudo, and this is neither."
        as_root=(sudo)
    fi
    say "installing ${missing[*]}"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
    look "$@"
    [ "${#missing[@]}" -eq 0 ] || missing_stop "Packages were installed, but something else comes before them on PATH."
}

# Where CMake looks by itself; see cmake/cuda.cmake.
nvcc_is_there()
{
    local nvcc version

    nvcc=${CUDACXX:-$(PATH="$PATH:${CUDA_HOME:-}/bin:${CUDA_PATH:-}/bin:/usr/local/cuda/bin" command -v nvcc)} || return
    version=$("$nvcc" --version | sed -n 's/.* release \([0-9.]*\),.*/\1/p')
    [ "$version" ] && [ "$(printf '%s\n' 12.5 "$version" | sort -V | head -n 1)" = 12.5 ]
}

# New enough for all of src/transport/ to be compiled.
nccl_is_there()
{
    local directory nvcc version

    nvcc=$(PATH="$PATH:${CUDA_HOME:-}/bin:${CUDA_PATH:-}/bin:/usr/local/cuda/bin" command -v "${CUDACXX:-nvcc}") || nvcc=""
    for directory in "${NCCL_ROOT:-}" "${nvcc%/bin/*}" /usr/local /usr; do
        if [ -e "$directory/include/nccl.h" ]; then
            version=$(sed -n 's/^#define NCCL_\(MAJOR\|MINOR\) *\([0-9]*\).*/\2/p' "$directory/include/nccl.h" | paste -s -d .)
            [ "$(printf '%s\n' 2.29 "$version" | sort -V | head -n 1)" = 2.29 ]
            return
        fi
    done
    return 1
}

# fetch FOLDER WHEEL..: unpack into a folder, once.
fetch()
{
    local folder=$1

    shift
    if [ ! -e "$folder/fetched" ]; then
        say "fetching ${*}"
        python3 -m pip install --quiet --no-deps --only-binary :all: --no-compile --upgrade --root-user-action ignore \
            --target "$folder" "$@" ||
            missing_stop "The CUDA compiler is not here and could not be fetched; put nvcc on PATH or set CUDACXX."
        touch "$folder/fetched"
    fi
}

# ensure_cuda: where nvcc or NCCL is not found, fetch it into build/ and point CMake there. Comes after ensure need_for_cuda.
ensure_cuda()
{
    local cuda=$root/build/cuda-toolkit nccl=$root/build/nccl

    if ! nvcc_is_there; then
        fetch "$cuda" nvidia-{cuda-nvcc,cuda-crt,nvvm,cuda-runtime,cuda-cccl,nvtx}"==13.0.*"
        cuda=$cuda/nvidia/cu13
        # Wheels hold no links.
        ln -sfn lib "$cuda/lib64"
        ln -sf libcudart.so.13 "$cuda/lib/libcudart.so"
        export CUDACXX=$cuda/bin/nvcc
        nvcc_is_there || missing_stop "nvcc was fetched, but does not run here."
    fi
    if ! nccl_is_there; then
        fetch "$nccl" "nvidia-nccl-cu13==2.32.*"
        nccl=$nccl/nvidia/nccl
        ln -sf libnccl.so.2 "$nccl/lib/libnccl.so"
        export NCCL_ROOT=$nccl
    fi
}

# build PRESET [CMAKE OPTION..]: configure, then build; into build/ or build-PRESET/.
build()
{
    local preset=$1

    shift
    say "building ($preset)"
    (
        cd "$root" || exit
        cmake --preset "$preset" "$@" --log-level=WARNING
        cmake --build --preset "$preset" --parallel "$cores"
    )
}

# MPI as root, and with more ranks than cores: Open MPI 4 and 5 want to be told, MPICH does not mind.
mpi_environment()
{
    local ranks=$1

    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    if [ "$cores" -lt "$ranks" ]; then
        export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
        export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
    fi
}
