#!/bin/sh
# Copies Python, /opt/vectorizer and every library that these name into a folder: minimal_root.sh FOLDER
set -eu
root=$1
mkdir -p "$root/tmp" "$root/etc" "$root/proc"
take() { for path in "$@"; do tar -C / -cf - "${path#/}" | tar -C "$root" -xf -; done; }

# The program that /opt/vectorizer/bin/python leads to, by way of all links.
link=/opt/vectorizer/bin/python3
while [ -L "$link" ]; do
  target=$(readlink "$link")
  case $target in /*) link=$target ;; *) link=$(dirname "$link")/$target ;; esac
  case $link in /opt/vectorizer/*) ;; *) take "$link" ;; esac
done
stdlib=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
take /opt/vectorizer "$stdlib"
for unused in test idlelib tkinter turtledemo ensurepip lib2to3 site-packages dist-packages pydoc_data; do
  rm -rf "$root$stdlib/$unused"
done
find "$root$stdlib" -name 'config-*' -type d -prune -exec rm -rf {} +

# What the loader finds for all of these, and the loader itself; names of hosts are in libc.
{ echo "$link"; find "$stdlib" /opt/vectorizer -name '*.so*' -type f; } | xargs ldd 2>/dev/null |
  grep -o '/[^ )]*\.so[^ )]*' | sort -u | while read -r library; do
    case $library in "$root"*|/opt/vectorizer/*|"$stdlib"/*) ;; *)
      mkdir -p "$root$(dirname "$library")"; cp -L "$library" "$root$library" ;; esac
  done
for file in /etc/ld.so.cache /etc/nsswitch.conf /etc/ssl/certs/ca-certificates.crt /usr/share/zoneinfo; do
  [ ! -e "$file" ] || take "$file"
done
echo 'vectorizer:x:65532:65532::/:/nologin' >"$root/etc/passwd"
echo 'vectorizer:x:65532:' >"$root/etc/group"
chmod 1777 "$root/tmp"
