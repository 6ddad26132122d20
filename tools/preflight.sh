#!/bin/sh
# Says, one line each, what this machine lacks for `make setup`, and what to do about it.
# Plain sh: it runs before a usable Python is known to be there. Usage: preflight.sh [python]
python=${1:-python3}
missing=0

lacks() {
    echo "setup needs $1" >&2
    missing=1
}

if ! command -v "$python" >/dev/null 2>&1; then
    lacks "Python 3.11 or newer, and there is no '$python': install it, or name one: make setup PYTHON=python3.12"
elif ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    lacks "Python 3.11 or newer, and '$python' is $("$python" --version 2>&1): name a newer one: make setup PYTHON=python3.12"
elif ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    lacks "Python's venv module, which Debian and Ubuntu package apart: apt-get install python$version-venv"
fi

node_needed=$(sed -n 's/.*"node": *">=\([0-9.]*\)".*/\1/p' js/package.json)
node_needed=${node_needed:-20}
is_enough='
const parts = (text) => text.split(".").map(Number);
const [have, need] = [parts(process.versions.node), parts(process.argv[1])];
process.exit(have[0] > need[0] || (have[0] === need[0] && have[1] >= (need[1] ?? 0)) ? 0 : 1);'
if ! command -v node >/dev/null 2>&1; then
    lacks "Node.js $node_needed or newer, and there is no 'node': install it from https://nodejs.org"
elif ! node -e "$is_enough" "$node_needed" >/dev/null 2>&1; then
    lacks "Node.js $node_needed or newer, and 'node' is $(node --version 2>&1): install a newer one from https://nodejs.org"
fi
command -v npm >/dev/null 2>&1 || lacks "npm, which comes with Node.js: on Debian and Ubuntu, apt-get install npm"
command -v git >/dev/null 2>&1 || lacks "git: on Debian and Ubuntu, apt-get install git"

exit "$missing"
