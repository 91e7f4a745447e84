#!/usr/bin/env bash
# A picture of a run's report, as a reader sees it: scripts/shoot_report.sh runs/train/latest/report.html shot.png
set -euo pipefail
page=$(realpath -- "$1")
browser=$(command -v chromium || command -v google-chrome)
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
"$browser" --headless --no-sandbox --disable-gpu --disable-sync --no-first-run --disable-background-networking \
  --user-data-dir="$profile" --window-size=1280,7000 --virtual-time-budget=8000 --screenshot="$2" "file://$page"
