#!/usr/bin/env bash
# Pulls one exact commit on a pod and runs a command on it, detached, losing nothing when the pod is taken away.
#
#   pull_and_train.sh REPO REF COMMAND...
#   pull_and_train.sh https://github.com/you/tradsys main python -m tradsys.train +experiment=transformer trainer=gpu
#
# Start it again whenever in doubt: a running job is named, a finished one is left alone, an interrupted one goes on.
# Everything lies on the volume, under $VOLUME/tradsys: code/<commit>, env/<hash>, jobs/<job>, runs, data, models.
#
#   VOLUME=/workspace   the network volume          FOLLOW=1          stay, show the log, exit with the job's code
#   WORKER=             different on each pod that shall run the same command at once (workers of one study)
#   FORCE=1             run a finished job again    EXTRAS=postgres   extras of pyproject.toml to install
#   S3_URI=             s3://bucket/path, or remote:path for rclone; S3_ENDPOINT= for other stores than Amazon's
#   STOP_POD=1          stop the pod at the end     STOP_POD=delete   or delete it (the network volume stays)
#   PYTHON=python3      the interpreter             LOCK_WAIT=1800    seconds to wait for another start's install
#
# Exit codes: 0 started, running or done; 2 refused, with the reason; else, with FOLLOW=1, the job's own.
set -euo pipefail

readonly HEARTBEAT_S="${HEARTBEAT_S:-20}"
readonly STALE_S=$((HEARTBEAT_S * 6)) # a heartbeat older than this belongs to a pod that is gone

# A URL may carry a token or a password: neither reaches a log.
redacted() { sed -E 's#://[^/@[:space:]]*@#://***@#g'; }

say() { printf 'pull_and_train: %s\n' "$*" | redacted; }

refuse() {
  say "$*" >&2
  exit 2
}

write_whole() { # write_whole PATH CONTENT
  printf '%s\n' "$2" >"$1.$$.part"
  mv -f "$1.$$.part" "$1"
}

digest() { sha256sum | cut -c1-16; }

age_s() { echo $(($(date +%s) - $(stat -c %Y "$1"))); }

pod_name() { printf '%s' "${RUNPOD_POD_ID:-$(hostname)}"; }

# ---------------------------------------------------------------- code

# Sets COMMIT and TREE: a checkout of its own per commit, so that a new start never changes code under a running job.
pull() {
  local repo=$1 ref=$2 mirror dirty
  mirror="$BASE/mirror/$(printf '%s' "$repo" | redacted | digest).git"
  git init --quiet --bare "$mirror"
  # The URL is an argument and never a configured remote: a token in it does not come to rest on the volume.
  if ! git -C "$mirror" fetch --quiet --prune -- "$repo" '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*' \
    2> >(redacted >&2); then
    git -C "$mirror" cat-file -e "$ref^{commit}" 2>/dev/null && [[ $ref =~ ^[0-9a-f]{40}$ ]] ||
      refuse "repository $repo cannot be fetched (its own words above); check the address, the token and the network"
    say "repository $repo cannot be fetched; commit $ref is here already and is used"
  fi
  if [[ $ref =~ ^[0-9a-f]{40}$ ]] && ! git -C "$mirror" cat-file -e "$ref^{commit}" 2>/dev/null; then
    git -C "$mirror" fetch --quiet -- "$repo" "$ref" 2>/dev/null || true # a commit that no branch holds
  fi
  COMMIT=$(git -C "$mirror" rev-parse --verify --quiet --end-of-options "$ref^{commit}") ||
    refuse "ref '$ref' is unknown in $repo; branches: $(git -C "$mirror" for-each-ref --format='%(refname:short)' \
      --sort=-committerdate --count=10 refs/heads | paste -sd ' '); push it first or give one of these"
  TREE="$BASE/code/$COMMIT"
  trust "$mirror" "$TREE"
  if [ ! -e "$TREE/.git" ]; then
    rm -rf "$TREE" "$TREE.part"
    git -C "$mirror" worktree prune
    git -C "$mirror" worktree add --quiet --force --detach "$TREE.part" "$COMMIT"
    git -C "$mirror" worktree move "$TREE.part" "$TREE"
  fi
  dirty=$(git -C "$TREE" status --porcelain)
  [ -z "$dirty" ] || refuse "checkout $TREE was edited: $(cut -c4- <<<"$dirty" | paste -sd ' '); a result must belong to" \
    "a commit; commit and push the change from where you edit, then delete this folder and start again"
  [ "$(git -C "$TREE" rev-parse HEAD)" = "$COMMIT" ] ||
    refuse "checkout $TREE is not at commit $COMMIT; delete the folder and start again"
}

# Git refuses folders of another user, and the user of a volume changes with the image of the pod.
trust() {
  local path count=0
  for path in "$@"; do
    export "GIT_CONFIG_KEY_$count=safe.directory" "GIT_CONFIG_VALUE_$count=$path"
    count=$((count + 1))
  done
  export GIT_CONFIG_COUNT=$count
}

# ---------------------------------------------------------------- environment

# Sets ENV: reused by the hash of what decides it. A folder of its own is filled first and the name points at it last,
# so an interrupted install has no name and is swept away by the next start.
environment() {
  local python=${PYTHON:-python3} extras=${EXTRAS-postgres} key build
  "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
    refuse "python: $("$python" -V 2>&1) at $(command -v "$python" || echo "$python"); tradsys needs 3.11 to 3.13; set PYTHON"
  key=$({ cat "$TREE/constraints.txt" "$TREE/pyproject.toml" && if [ -f "$TREE/constraints.lock" ]; then cat "$TREE/constraints.lock"; fi && printf '%s' "$extras" &&
    "$python" -c 'import sys; print(sys.version, sys.base_prefix)'; } | digest)
  ENV="$BASE/env/$key"
  if [ -x "$ENV/bin/python" ] && "$ENV/bin/python" -c '' 2>/dev/null; then
    say "environment $key: reused"
    return
  fi
  build="$BASE/env/.$key.$(pod_name).$$"
  rm -rf "$BASE/env/.$key".*
  say "environment $key: installing, log in $BASE/env/$key.log"
  if ! { "$python" -m venv "$build" &&
    install_dependencies "$build/bin/python" "$extras"; } >"$BASE/env/$key.log" 2>&1; then
    rm -rf "$build"
    if grep -qiE 'no space left|disk quota' "$BASE/env/$key.log"; then
      refuse "volume: $VOLUME is full ($(free_space) free); enlarge it, or delete $BASE/cache and old folders of $BASE/env"
    fi
    tail -n 15 "$BASE/env/$key.log" | redacted >&2
    refuse "environment: the install failed, its last lines are above; fix the cause and start again"
  fi
  ln -s "$(basename "$build")" "$build.link"
  mv -fT "$build.link" "$ENV"
  say "environment $key: installed"
}

# By hash where the commit has a lock, which holds the core and the extra postgres; other extras by version alone. Only
# dependencies stay: the code itself is read from the checkout, so one environment serves many commits.
install_dependencies() { # install_dependencies PYTHON EXTRAS
  local python=$1 extras=$2
  local -x PIP_CACHE_DIR="${PIP_CACHE_DIR:-$BASE/cache/pip}" PIP_DISABLE_PIP_VERSION_CHECK=1
  if [ -f "$TREE/constraints.lock" ]; then
    "$python" -m pip install --require-hashes -r "$TREE/constraints.lock" || return 1
    [ -n "${extras#postgres}" ] || return 0
  fi
  "$python" -m pip install -c "$TREE/constraints.txt" "$TREE${extras:+[$extras]}" &&
    "$python" -m pip uninstall --quiet --yes tradsys
}

free_space() { df -Ph "$VOLUME" | awk 'NR == 2 {print $4}'; }

# ---------------------------------------------------------------- job

# The override that resumes what this job left unfinished, or nothing. Only `tradsys.train` keeps resumable folders; a
# tuning worker finds its place through the study's storage. A run counts when it has no report yet, was started with
# the same overrides after this job began, and no other job has claimed it.
resume_override() {
  local job=$1 run arguments claimed found=""
  shift
  [ "${2-}" = "-m" ] && [ "${3-}" = "tradsys.train" ] || return 0
  [[ " $* " != *" resume="* ]] || return 0
  shift 3
  arguments=$([ $# -eq 0 ] || printf '%s\n' "$@")
  for run in "$BASE"/runs/train/*/; do # names begin with their UTC time: the last match is the newest
    run=${run%/}
    [ ! -L "$run" ] && [ -f "$run/overrides.txt" ] && [ ! -f "$run/report.json" ] || continue
    [ "$run/overrides.txt" -nt "$job/created" ] && [ "$(cat "$run/overrides.txt")" = "$arguments" ] || continue
    claimed=$(grep -lxF "$run" "$BASE"/jobs/*/run 2>/dev/null | grep -vxF "$job/run" || true)
    [ -n "$claimed" ] || found=$run
  done
  [ -n "$found" ] || return 0
  write_whole "$job/run" "$found"
  printf 'resume=%s' "${found#"$BASE"/}"
}

# Runs in the background, one per job: holds the job's lock, beats, runs, uploads, stops the pod. Arguments: the job.
attend() {
  local job=$1 code command resume="" child beat
  exec 8>"$job/lock"
  flock -w 5 8 || exit 0 # it may be held for a moment by one who asks whether the job runs
  mapfile -d '' -t command <"$job/command"
  ATTENDED=$job # for the trap, which outlives this function's locals
  trap 'rm -f "$ATTENDED/heartbeat" "$ATTENDED/pid"' EXIT
  write_whole "$job/heartbeat" "$(pod_name)"
  write_whole "$job/pid" "$$"
  cd "$BASE"
  resume=$(resume_override "$job" "${command[@]}")
  echo "=== $(date -u +%FT%TZ) pod $(pod_name), commit $(cat "$job/commit")${resume:+, $resume}"
  [ -z "$resume" ] || command+=("$resume")
  # Job control gives the child a process group of its own; env gives it back SIGINT, which whatever was started with
  # `&` somewhere above has been made to ignore.
  set -m
  env --default-signal=INT "${command[@]}" 8>&- &
  child=$!
  # A spot pod is warned by SIGTERM a few seconds ahead; Ctrl-C is what makes training leave a checkpoint.
  trap 'kill -INT -- "-$child" 2>/dev/null || true' TERM INT HUP
  (while sleep "$HEARTBEAT_S" && kill -0 "$child" 2>/dev/null; do
    touch "$job/heartbeat"
    [ -n "$resume" ] || resume_override "$job" "${command[@]}" >/dev/null # claims the new run's folder
  done) 8>&- &
  beat=$!
  code=0
  wait "$child" || code=$?
  while kill -0 "$child" 2>/dev/null; do # the wait above ends early when a signal arrives
    code=0
    wait "$child" || code=$?
  done
  kill -- "-$beat" 2>/dev/null || true
  set +m
  echo "=== $(date -u +%FT%TZ) ended with exit code $code"
  write_whole "$job/exit_code" "$code"
  upload "$job" || echo "upload to \$S3_URI failed (its own words above); everything is still on the volume, in $BASE"
  stop_pod || echo "the pod could not be stopped (words above); stop it by hand: it costs money until then"
}

upload() {
  local job=$1 endpoint=()
  [ -n "${S3_URI:-}" ] || return 0
  if [[ $S3_URI == s3://* ]] && command -v aws >/dev/null; then
    [ -z "${S3_ENDPOINT:-}" ] || endpoint=(--endpoint-url "$S3_ENDPOINT")
    [ ! -d "$BASE/runs" ] || aws s3 sync --only-show-errors "${endpoint[@]}" "$BASE/runs" "${S3_URI%/}/runs" || return 1
    aws s3 cp --only-show-errors "${endpoint[@]}" "$job/log.txt" "${S3_URI%/}/jobs/$(basename "$job").txt" || return 1
  elif command -v rclone >/dev/null; then
    [ ! -d "$BASE/runs" ] || rclone copy "$BASE/runs" "${S3_URI%/}/runs" || return 1
    rclone copyto "$job/log.txt" "${S3_URI%/}/jobs/$(basename "$job").txt" || return 1
  else
    echo "S3_URI is set, but neither aws (for s3://...) nor rclone (for remote:path) is here"
    return 1
  fi
  echo "uploaded"
}

# The newer and the older spelling of runpodctl are both in use; every pod has one of them and a key of its own.
stop_pod() {
  case "${STOP_POD:-}" in
    "" | 0) return 0 ;;
    delete) runpodctl pod delete "$RUNPOD_POD_ID" || runpodctl remove pod "$RUNPOD_POD_ID" ;;
    *) runpodctl pod stop "$RUNPOD_POD_ID" || runpodctl stop pod "$RUNPOD_POD_ID" ;;
  esac
}

running_on() { # running_on JOB: the pod whose heartbeat is fresh, or nothing
  if [ -f "$1/heartbeat" ] && [ "$(age_s "$1/heartbeat")" -lt "$STALE_S" ]; then cat "$1/heartbeat"; fi
}

# True while the job's own process lives on this machine.
attended() { ! flock -n "$1/lock" true; }

launch() { # launch JOB
  local job=$1
  install -m 700 "${BASH_SOURCE[0]}" "$job/attend.sh" # what runs must not change when the checkout does
  if command -v tmux >/dev/null && [ -z "${NO_TMUX:-}" ]; then
    # A server of its own: one that runs already would hand down its own, older environment, without the keys. The
    # start lock (9) is closed, or it would be held for as long as the job runs.
    if tmux -L "$(basename "$job")" new-session -d -s job \
      "exec bash '$job/attend.sh' --attend '$job' >>'$job/log.txt' 2>&1" 9>&-; then
      return
    fi
    say "tmux does not start here; going on without it"
  fi
  nohup setsid bash "$job/attend.sh" --attend "$job" >>"$job/log.txt" 2>&1 </dev/null 9>&- &
}

follow() { # follow JOB: shows the log from here on and exits with the job's code; stopping it stops the job
  local job=$1 pid tail_pid
  pid=$(cat "$job/pid" 2>/dev/null || echo 0)
  trap 'kill -TERM "$pid" 2>/dev/null || true' TERM INT
  tail -n 20 -F "$job/log.txt" 2>/dev/null &
  tail_pid=$!
  while attended "$job"; do sleep 1; done
  sleep 1 # lets tail catch up
  kill "$tail_pid" 2>/dev/null || true
  exit "$(cat "$job/exit_code" 2>/dev/null || echo 2)"
}

# ---------------------------------------------------------------- start

main() {
  local repo ref job elsewhere name checked
  [ $# -ge 3 ] || refuse "three things are needed: REPO REF COMMAND...; the head of this file has an example"
  repo=$1 ref=$2
  shift 2
  VOLUME=${VOLUME:-/workspace}
  [ -d "$VOLUME" ] && [ -w "$VOLUME" ] ||
    refuse "volume: $VOLUME is not a folder that can be written; attach the network volume or set VOLUME"
  for name in git flock sha256sum; do
    command -v "$name" >/dev/null || refuse "$name is not installed; the image of Dockerfile.gpu has it, or apt-get install it"
  done
  BASE=$(cd "$VOLUME" && pwd -P)/tradsys
  mkdir -p "$BASE"/{mirror,code,env,jobs,runs,data,models}
  exec 9>"$BASE/start.lock"
  flock -w "${LOCK_WAIT:-1800}" 9 || refuse "another start holds $BASE/start.lock for more than ${LOCK_WAIT:-1800} s; look for it"

  pull "$repo" "$ref"
  say "commit $COMMIT"
  job="$BASE/jobs/$(printf '%s\0' "$COMMIT" "${WORKER:-}" "$@" | digest)"
  mkdir -p "$job"
  if attended "$job"; then
    say "running since $(cat "$job/created"), log $job/log.txt"
    finish "$job"
  fi
  elsewhere=$(running_on "$job")
  if [ -n "$elsewhere" ] && [ "$elsewhere" != "$(pod_name)" ]; then
    say "pod $elsewhere showed a sign of life $(age_s "$job/heartbeat") s ago; waiting $STALE_S s to see whether it is gone"
    sleep "$STALE_S"
    elsewhere=$(running_on "$job")
  fi
  if [ -n "$elsewhere" ] && [ "$elsewhere" != "$(pod_name)" ]; then
    refuse "the same command runs on pod $elsewhere (sign of life $(age_s "$job/heartbeat") s ago); wait, stop that pod," \
      "or set WORKER to a different word on each pod when they shall all run it"
  fi
  if [ "$(cat "$job/exit_code" 2>/dev/null)" = 0 ] && [ -z "${FORCE:-}" ]; then
    say "finished before, exit code 0, log $job/log.txt; FORCE=1 runs it again"
    finish "$job"
  fi
  environment
  export PATH="$ENV/bin:$PATH" VIRTUAL_ENV="$ENV" PYTHONPATH="$TREE/src" PYTHONUNBUFFERED=1
  checked=() # the doctor judges the very experiment that is to be trained
  if [ "${2-}" = "-m" ] && [ "${3-}" = "tradsys.train" ]; then
    for name in "${@:4}"; do [[ $name == resume=* ]] || checked+=("$name"); done
  fi
  (cd "$BASE" && python -m tradsys.doctor "${checked[@]}") ||
    refuse "doctor: this machine cannot do it (its reasons above); nothing was started"
  [ -f "$job/created" ] || write_whole "$job/created" "$(date -u +%FT%TZ)"
  rm -f "$job/exit_code" "$job/heartbeat" "$job/pid"
  write_whole "$job/commit" "$COMMIT"
  (umask 077 && printf '%s\0' "$@" >"$job/command")
  launch "$job"
  until [ -f "$job/pid" ] || [ -f "$job/exit_code" ]; do
    [ "$(age_s "$job/command")" -lt 60 ] || refuse "the job did not come up within 60 s; its log: $job/log.txt"
    sleep 0.1
  done
  say "started, log $job/log.txt"
  finish "$job"
}

finish() {
  exec 9>&-
  [ -z "${FOLLOW:-}" ] || follow "$1"
  exit 0
}

if [ "${1-}" = "--attend" ]; then
  BASE=$(cd "$(dirname "$2")/.." && pwd -P)
  attend "$2"
else
  main "$@"
fi
