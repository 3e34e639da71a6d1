#!/usr/bin/env bash
# Build the image without Docker: deploy/build_image.sh FOLDER
#
# For a machine with Debian's buildah and debootstrap, as root: makes a base of Debian with Python, builds
# the Dockerfile on it with --isolation chroot, and leaves the image's root in FOLDER/root and its
# configuration in FOLDER/config.json. With Docker, `docker build .` is all there is to it.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:?give a folder}"
folder=$(cd "$1" && pwd)
for tool in buildah debootstrap python3; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install buildah debootstrap" >&2; exit 69; }
done

store() { buildah --root "$folder/store" --runroot "$folder/run" --storage-driver vfs "$@"; }

base() {
  # The mirror and the release of this machine.
  local site release
  read -r site release < <(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' | head -1)
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    "$release" "$folder/base" "$site" >"$folder/debootstrap.log" 2>&1 || { tail "$folder/debootstrap.log" >&2; exit 1; }
  # What slim images leave out.
  rm -rf "$folder"/base/{var/cache/apt,var/lib/apt/lists,usr/share/{doc,man,locale,info}}/*
  local container
  container=$(store from scratch)
  store copy -q "$container" "$folder/base" / >/dev/null
  store commit -q "$container" localhost/vectorizer-base >/dev/null
  store rm "$container" >/dev/null
  rm -rf "$folder/base"
}

# How pip reaches its index is the machine's affair: MOUNTS names what it needs besides its configuration.
mounts=()
for path in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt ${MOUNTS:-}; do
  [[ -e $path ]] && mounts+=(-v "$path:$path:ro")
done

store inspect localhost/vectorizer-base >/dev/null 2>&1 || base
# HEALTHCHECK is known to Docker's format only.
store bud --isolation chroot --format docker "${mounts[@]}" --build-arg BASE=localhost/vectorizer-base \
  -t localhost/vectorizer . >"$folder/build.log" 2>&1 || { tail -30 "$folder/build.log" >&2; exit 1; }
store inspect --type image localhost/vectorizer |
  python3 -c 'import json, sys; json.dump(json.load(sys.stdin)["Docker"]["config"], sys.stdout)' >"$folder/config.json"
rm -rf "$folder/root"
container=$(store from --pull-never localhost/vectorizer)
cp -a "$(store mount "$container")" "$folder/root"
store rm "$container" >/dev/null
size() { du -sm --apparent-size "$1" | cut -f1; }
echo "the image takes $(size "$folder/root") MB, $(size "$folder/root/opt/vectorizer") of them ours"
