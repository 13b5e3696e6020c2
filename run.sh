#!/usr/bin/env bash
# Set up and run the recipes; see usage() below or ./run.sh --help.
set -euo pipefail

root=$(CDPATH= cd -- "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=$root/.venv
log=$venv/install.log
stamp=$venv/installed
extras=dev,demo,export,generation,llm,ray,search,trackers
main_recipe=(best --config recipes/configs/best_sample.yaml)

usage() {
  local script windows
  # The default run as PowerShell writes it: backslashes in paths.
  windows=$(echo "recipes/${main_recipe[0]}.py ${main_recipe[*]:1}" | tr / '\\')
  cat <<EOF
./run.sh                     set up, then run: ${main_recipe[*]} (on the shipped sample)
./run.sh NAME [flags]        set up, then launch recipes/NAME.py with these flags
./run.sh NAME --help         the flags of a recipe
./run.sh setup               set up only
./run.sh test [pytest args]  set up, check style and types, run the tests
./run.sh --help              this text
EOF
  # A project made by `copy` has no further recipe to copy.
  [[ ! -f $root/shared/project.py ]] ||
    echo "./run.sh copy NAME FOLDER    make a working project of one recipe in an empty folder"
  printf '\nrecipes:\n'
  for script in "$root"/recipes/*.py; do
    # The first line of the module's docstring says what the recipe is for.
    printf '  %-24s %s\n' "$(basename "$script" .py)" "$(sed -n '1s/^"""//p' "$script" | sed 's/"""$//')"
  done
  cat <<EOF

environment variables:
  PYTHON             the Python 3.10 to 3.13 to set up with (default: the first one found)
  ACCELERATE_CONFIG  an accelerate config (default: the one that "accelerate config" wrote, else
                     recipes/configs/accelerate/ by the GPUs found)
  OMP_NUM_THREADS    threads of each process (default: the cores, divided among the processes)

other shells and systems:
  any shell: after one ./run.sh setup, in this folder: .venv/bin/accelerate launch recipes/NAME.py
  macOS: ./run.sh as above; it needs no newer bash than the 3.2 that macOS has
  Windows: ./run.sh in WSL, or these lines in PowerShell, in this folder:
    py -3 -m venv .venv
    .venv\Scripts\pip install -c constraints.txt -e ".[$extras]"
    .venv\Scripts\accelerate launch ${windows% }
EOF
}

fail() {
  echo "error: $*" >&2
  exit 2
}

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python3.10 python; do
    if command -v "$candidate" >/dev/null &&
      "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
    [[ $candidate != "${PYTHON:-}" ]] || fail "PYTHON=$PYTHON is not a Python 3.10 to 3.13"
  done
  fail "no Python 3.10 to 3.13 found; install one, or name it: PYTHON=/path/to/python3 ./run.sh"
}

# What an installation depends on: the pins, the metadata, and where the project lies.
fingerprint() {
  { cat "$root/constraints.txt" "$root/setup.cfg" "$root/pyproject.toml"; echo "$root"; } | cksum
}

setup() {
  local wanted python free owner
  wanted=$(fingerprint)
  [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && return
  python=$(find_python)
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv module; install it (Debian, Ubuntu: apt install python3-venv)"
  [[ -w $root ]] || fail "$root cannot be written; copy the project to a folder of your own"
  free=$(df -Pk "$root" | awk 'NR == 2 {print int($4 / 1024 / 1024)}')
  [[ -x $venv/bin/python ]] || ((free >= 4)) ||
    fail "$root has $free GB free; the installation needs 4 GB"

  # One installation at a time. The lock is a link to its owner's number, so that it never lies
  # there without one; a lock whose owner died is taken over.
  local lock=$root/.venv.lock
  until ln -s $$ "$lock" 2>/dev/null; do
    owner=$(readlink "$lock" || true)
    if [[ $owner != "$$" ]] && kill -0 "$owner" 2>/dev/null; then
      echo "waiting for another installation to finish (process $owner, $lock) ..." >&2
      sleep 5
    else
      rm -rf "$lock"
    fi
  done
  trap 'rm -f "$root/.venv.lock"' EXIT
  if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then  # the other one has done it
    rm -f "$lock"
    trap - EXIT
    return
  fi

  # An environment whose installation was cut short may hold half a package: it is made anew.
  # Changed pins are installed over a whole one.
  if ! [[ -f $stamp ]] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
  fi
  rm -f "$stamp"
  echo "installing into .venv with $("$venv/bin/python" --version), once; 1 to 5 minutes, log in .venv/install.log" >&2
  # The pip that comes with Python 3.10 to 3.12 takes twice as long to choose the packages. Neither
  # compiles: it would use one core.
  local pip=("$venv/bin/python" -m pip install --disable-pip-version-check --no-input --no-compile)
  if ! { "${pip[@]}" pip==26.3 &&
    "${pip[@]}" --constraint "$root/constraints.txt" --editable "$root[$extras]"; } 2>&1 | tee "$log" |
    awk '/^ *(Collecting|Downloading|Requirement)/ {if (++n % 4 == 0) {printf "."; fflush()}} END {print ""}' >&2; then
    grep -E '^ERROR|No space|error:' "$log" | tail -n 3 >&2 || true
    fail "the installation failed; the whole log is $log; the next ./run.sh tries again"
  fi
  # Without the tests of packages. Some packages hold files that this Python cannot compile.
  echo "compiling the packages with all cores, 1 minute on two ..." >&2
  trap 'exit 130' INT  # of which compileall makes a failure
  "$venv/bin/python" -m compileall -qq -j 0 -x "site-packages/.*/tests/" "$venv/lib" || true
  trap - INT
  echo "$wanted" >"$stamp"
  rm -f "$lock"
  trap - EXIT
}

launch() {
  # The recipe takes the place of this script, so that signals and exit codes are its own.
  exec "$venv/bin/python" "$root/shared/cli/launcher.py" launch "$@"
}

case ${1:-} in
  -h | --help | help)
    usage
    ;;
  "")
    setup
    cd "$root"
    launch "recipes/${main_recipe[0]}.py" "${main_recipe[@]:1}"
    ;;
  setup)
    setup
    ;;
  test)
    shift
    setup
    cd "$root"
    "$venv/bin/ruff" check .
    "$venv/bin/ruff" format --check .
    "$venv/bin/mypy"
    # A process per core, each with one thread; the tests of a file share what they train. The
    # slow files of tests/recipes come first, so that all processes end at the same time.
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    exec "$venv/bin/python" -m pytest -n logical --maxprocesses 4 --dist loadfile \
      --no-loadscope-reorder "$@"
    ;;
  copy)
    shift
    setup
    exec "$venv/bin/python" "$root/shared/project.py" "$root" "$@"
    ;;
  *)
    [[ -f $root/recipes/$1.py ]] || {
      usage >&2
      fail "there is no recipe '$1'"
    }
    recipe=$1
    shift
    setup
    launch "$root/recipes/$recipe.py" "$@"
    ;;
esac
