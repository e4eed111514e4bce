#!/usr/bin/env bash
# install.sh BUNDLE WHEELS: install a bundle from a folder of wheels, and what it needs from the
# index; then import every plugin. The steps of the Dockerfile; they run in any environment.
set -euo pipefail
bundle=${1:?which bundle: text, vision, rl, serve, web, all}
wheels=${2:?folder with the wheels of scripts/dev.py build}

# the wheels' own version, so that none comes from the index in their place
wheel=$(basename "$(ls "$wheels"/tunewright-*-py3-none-any.whl)")
version=${wheel#tunewright-}
version=${version%%-*}

python -m pip install --find-links "$wheels" "tunewright[$bundle]==$version"
tunewright --version
tunewright plugins check
