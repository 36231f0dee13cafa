#!/bin/sh
# Update the clone in which runs work to the image's commit: checkout.sh [IMAGE] [PROJECT] [CACHE].
# Idempotent. Files of runs are kept; if a new commit would overwrite one, git fails and nothing changes.
set -eu
image=${1:-/opt/retune} project=${2:-/project} cache=${3:-/cache}
commit=$(git -C "$image" rev-parse --verify --quiet HEAD) || {
    echo "error: $image has no git commit: build the image from a clone, not from an archive or a git worktree" >&2
    exit 2
}
git init --quiet "$project"
git -C "$project" -c advice.detachedHead=false fetch --quiet "$image" "$commit"
git -C "$project" checkout --quiet --detach "$commit"
# Workers on one host share DVC's cache, whose files are addressed by hash and written atomically.
mkdir -p "$cache/dvc"
[ -e "$project/.dvc/cache" ] || ln -s "$cache/dvc" "$project/.dvc/cache"
# TMPDIR of the workers. Leftovers of killed runs are removed after a week, when no run can be using them.
mkdir -p "$project/var/tmp"
find "$project/var/tmp" -mindepth 1 -maxdepth 1 -mtime +6 -exec rm -rf {} +
echo "$project is at $commit"
