#!/usr/bin/env bash
# Makes .venv with the versions of constraints.txt, or returns at once when it is there and current.
# uv hard-links the packages from its cache: the first time downloads them, a second checkout takes seconds.
# PYTHON=... picks another interpreter; XDG_CACHE_HOME or UV_CACHE_DIR move the caches.
set -euo pipefail
set -m # a step gets a process group of its own, so that Ctrl-C can end all of it
cd "$(dirname "$0")/.."

gigabytes=7 # torch with its CUDA libraries is 6 GB unpacked
cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME: downloads are kept there}/.cache}
export UV_CACHE_DIR=${UV_CACHE_DIR:-$cache/uv} UV_HTTP_TIMEOUT=${UV_HTTP_TIMEOUT:-120} UV_PYTHON_DOWNLOADS=never
home=$cache/swarm-training
log=$home/setup.log

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

# pinned PACKAGE: its version in constraints.txt
pinned() {
    sed -n "s/^$1==\([^ ;]*\).*/\1/p" constraints.txt
}

# step WHAT COMMAND...: runs the command with its output in the log and shows how long it takes.
step() {
    local what=$1 start=$SECONDS shown=0 seconds last
    shift
    printf '== %s\n' "$what" >>"$log"
    "$@" </dev/null >>"$log" 2>&1 &
    job=$!
    [ -t 1 ] || echo "setup: $what ..."
    while sleep 0.2 && kill -0 "$job" 2>/dev/null; do
        seconds=$((SECONDS - start)) last=$(tail -n 1 "$log")
        [[ $last != '== '* ]] || last=
        if [ -t 1 ]; then
            printf '\r\033[Ksetup: %s ... %d s  %.40s' "$what" "$seconds" "$last"
        elif ((seconds >= shown + 15)); then
            shown=$seconds
            printf 'setup:   %d s %s\n' "$seconds" "$last"
        fi
    done
    [ ! -t 1 ] || printf '\r\033[K'
    if ! wait "$job"; then
        echo "setup: FAILED after $((SECONDS - start)) s: $what. The last lines:" >&2
        tail -n 15 "$log" | sed 's/^/    /' >&2
        fail "all of it is in $log"
    fi
    echo "setup: $what: $((SECONDS - start)) s"
}

# room DIR FOR: fails when the disk under DIR is too full.
room() {
    local free
    free=$(($(df --output=avail -B1 "$1" | tail -n 1) / 1000000000))
    ((free >= gigabytes)) || fail "$free GB free under $1, about $gigabytes GB needed for $2." \
        "Free some space, or move the checkout, or the caches with XDG_CACHE_HOME."
}

need_ensurepip() {
    ! "$python" -c 'import ensurepip, venv' 2>/dev/null || return 0
    command -v apt-get >/dev/null ||
        fail "$python lacks the modules venv and ensurepip: install your distribution's package for them, or set PYTHON."
    ((EUID == 0)) || fail "$python cannot make virtual environments yet. Run this once, then make again:" \
        "    sudo apt-get update && sudo apt-get install -y python3-venv"
    export DEBIAN_FRONTEND=noninteractive
    step "reading Debian's package lists" apt-get update
    step "installing python3-venv" apt-get install -y --no-install-recommends python3-venv
    "$python" -c 'import ensurepip, venv' || fail "python3-venv does not belong to $python: set PYTHON=/usr/bin/python3"
}

install_uv() {
    rm -rf "$uv_home"
    "$python" -m venv "$uv_home"
    "$uv_home/bin/python" -m pip install --disable-pip-version-check "uv==$(pinned uv)"
}

fill_venv() {
    local install=("$uv" pip install --python .venv/bin/python -c constraints.txt -e '.[dev]')
    "$uv" venv --clear --python "$python" .venv
    "${install[@]}" --offline 2>/dev/null || "${install[@]}"
}

# The base interpreter, since make puts .venv first on the path.
found=$("${PYTHON:-python3}" -c 'import sys; v = sys.version_info; print(
    v >= (3, 11), f"{sys.base_prefix}/bin/python{v[0]}.{v[1]}", sys.version.split()[0])') ||
    fail "${PYTHON:-python3} does not run: install Python 3.11 or newer, or set PYTHON to it"
read -r recent python version <<<"$found"
[ "$recent" = True ] || fail "$python is Python $version, 3.11 or newer is needed: set PYTHON to one"

stamp=$(printf '%s\n' "$found" "$PWD" | cat - pyproject.toml constraints.txt | sha256sum)
current() {
    [ -x .venv/bin/python ] && [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]
}
! current || exit 0

mkdir -p "$home" "$UV_CACHE_DIR" || fail "cannot write to $cache: set XDG_CACHE_HOME to a folder that can be written"
exec 9>"$home/lock"
if ! flock --nonblock 9; then
    echo "setup: another setup is running, waiting for it"
    flock 9
    ! current || exit 0
fi
: >"$log"
trap '[ -z "${job:-}" ] || kill -- "-$job" 2>/dev/null; echo; fail "interrupted; the next make starts over"' INT TERM

filled=$UV_CACHE_DIR/swarm-training-has-torch-$(pinned torch)
[ -e "$filled" ] || room "$UV_CACHE_DIR" "torch and its CUDA libraries"
[ "$(stat -c %d .)" = "$(stat -c %d "$UV_CACHE_DIR")" ] || room "$PWD" "a copy of the packages (the cache is on another disk)"

uv_home=$home/uv-$(pinned uv)
uv=$uv_home/bin/uv
if ! "$uv" --version >/dev/null 2>&1; then
    need_ensurepip
    step "getting uv $(pinned uv)" install_uv
fi
if [ -e "$filled" ]; then
    step "filling .venv from the cache" fill_venv
else
    step "downloading torch and the other packages (3 GB, once)" fill_venv
fi
touch "$filled"
# Once here, rather than in each of the five processes of the first run.
step "compiling torch's Python files" .venv/bin/python -c 'import torch; torch.optim.SGD([torch.zeros(1)], lr=1)'
echo "$stamp" >.venv/stamp
echo "setup: environment ready"
