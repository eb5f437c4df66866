#!/bin/sh
# Usage: setup.sh PYTHON VENV PACKAGE     A virtual environment with the package in it.
#
# torch comes first and by itself: left to the resolver, Linux gets the CUDA build, several
# gigabytes that a machine without a GPU cannot use.
set -eu
python=$1 venv=$2 package=$3
torch=$(sed -n 's/^torch==//p' constraints.txt)

say() { printf '%s\n' "$*" >&2; }

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    say "error: Endonym needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1 || echo 'not there')."
    say "  do: install one and run: make PYTHON=/path/to/python3.11 ..."
    exit 1
fi
if [ ! -x "$venv/bin/python" ]; then
    say "making a virtual environment in $venv"
    if ! "$python" -m venv "$venv"; then
        rm -rf "$venv"
        say "error: '$python -m venv' failed. On Debian and Ubuntu its package is python3-venv."
        exit 1
    fi
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

has_torch() { "$venv/bin/python" -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null; }

if ! has_torch; then
    if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
        say "a GPU is here: installing torch $torch with CUDA"
        pip install -q "torch==$torch"
    elif [ "$(uname -s)" != Linux ]; then
        say "installing torch $torch"   # elsewhere the ordinary build is the CPU (or Metal) build
        pip install -q "torch==$torch"
    else
        say "no GPU: installing the CPU build of torch $torch"
        # A configured index may hold it under its local version; otherwise uv knows where it is kept.
        pip install -q "torch==$torch+cpu" 2>/dev/null \
            || { pip install -q uv \
                 && "$venv/bin/python" -m uv pip install -q --python "$venv/bin/python" \
                        --torch-backend cpu "torch==$torch"; } \
            || { say "no CPU build is to be had here: installing the ordinary build (several gigabytes)"
                 pip install -q "torch==$torch"; }
    fi
fi
say "installing $package and what it needs"
pip install -q -c constraints.txt -e "$package"
