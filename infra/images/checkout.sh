#!/bin/sh
# Bring the clone in which runs work to the commit of the image: checkout.sh [IMAGE] [PROJECT] [CACHE].
# Repeatable. What runs have written into the clone stays; where a new commit would overwrite it, git says so and nothing changes.
set -eu
image=${1:-/opt/retune} project=${2:-/project} cache=${3:-/cache}
commit=$(git -C "$image" rev-parse --verify --quiet HEAD) || {
    echo "error: $image has no git commit: build the image from a clone, neither from an archive nor from a git worktree" >&2
    exit 2
}
git init --quiet "$project"
git -C "$project" -c advice.detachedHead=false fetch --quiet "$image" "$commit"
git -C "$project" checkout --quiet --detach "$commit"
# Workers of one machine share DVC's cache; what is in it is found by hash and written by rename.
mkdir -p "$cache/dvc"
[ -e "$project/.dvc/cache" ] || ln -s "$cache/dvc" "$project/.dvc/cache"
# Where a worker lays packages and inputs on their way (TMPDIR). What a killed run left there goes when no run can be at work on it.
mkdir -p "$project/var/tmp"
find "$project/var/tmp" -mindepth 1 -maxdepth 1 -mtime +6 -exec rm -rf {} +
echo "$project is at $commit"
