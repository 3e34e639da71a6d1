#!/usr/bin/env bash
# PostgreSQL 17 with pgvector and TimescaleDB (Apache edition) from Debian's packages, in a folder:
# nothing is installed on the machine, nothing is mounted. Needs root, on Debian or a relative of it.
# PgBouncer lies beside it; tests/interop starts its own.
#   .ci/postgres17.sh DEST PORT    makes it on first use, starts it, prints its URL
#   .ci/postgres17.sh DEST stop    stops it
# Its data does not survive a crash: for tests.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin # chroot, which a bare environment may not have
usage="usage: $0 DEST PORT|stop"
dest=$(mkdir -p "${1:?$usage}" && cd "$1" && pwd)
port=${2:?$usage}
root=$dest/root
apt=$dest/apt
bin=/usr/lib/postgresql/17/bin

in_root() {
  chroot --userspec=1500:1500 "$root" env -i LC_ALL=C.UTF-8 HOME=/pg PATH="$bin:/usr/bin:/bin" "$@"
}

configure_apt() { # an apt of its own, that knows nothing of what this machine has installed
  mkdir -p "$apt"/{etc/preferences.d,state/lists/partial,cache/archives/partial}
  : >"$apt/status"
  local mirror # the one that this machine uses
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sed -n '\#/debian/*$#p' | sort -u | sed -n 1p)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/etc/sources.list"
  cat >"$apt/apt.conf" <<CONF
Dir::Etc "$apt/etc";
Dir::Etc::sourcelist "$apt/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
CONF
}

unpack_debs() {
  configure_apt
  export APT_CONFIG=$apt/apt.conf
  apt-get -qq update >&2
  # dash and coreutils: initdb and pg_ctl call a shell.
  apt-get -qq -y --download-only install postgresql-17 postgresql-17-pgvector \
    postgresql-17-timescaledb pgbouncer dash coreutils >&2
  mkdir -p "$root"
  local deb
  for deb in "$apt"/cache/archives/*.deb; do dpkg-deb -x "$deb" "$root"; done
  rm -rf "$apt"
}

furnish() { # what a server needs of a machine
  local link
  for link in bin sbin lib lib64; do ln -sfn "usr/$link" "$root/$link"; done
  mkdir -p "$root"/{pg,tmp,dev,etc}
  echo 'postgres:x:1500:1500::/pg:/bin/sh' >"$root/etc/passwd"
  echo 'postgres:x:1500:' >"$root/etc/group"
  chmod 1777 "$root/tmp"
  chown 1500:1500 "$root/pg"
  [[ -e $root/dev/null ]] || mknod -m 666 "$root/dev/null" c 1 3
  [[ -e $root/dev/urandom ]] || mknod -m 666 "$root/dev/urandom" c 1 9
}

make_cluster() { # mmap: there is no /dev/shm in the root
  # One worker is TimescaleDB's launcher itself; more of them would visit every database that a
  # test wants to copy or drop, and there is nothing to schedule in this edition.
  in_root initdb -D /pg/data -A trust -E UTF8 --locale=C.UTF-8 --no-sync \
    -c dynamic_shared_memory_type=mmap -c fsync=off -c full_page_writes=off \
    -c max_connections=200 -c listen_addresses=127.0.0.1 -c shared_preload_libraries=timescaledb \
    -c timescaledb.max_background_workers=1 -c timescaledb.telemetry_level=off \
    -c wal_level=logical -c max_prepared_transactions=5 >/dev/null
}

if [[ $port == stop ]]; then
  [[ ! -e $root/pg/data/postmaster.pid ]] || in_root pg_ctl -D /pg/data -s -m fast stop
  exit
fi
[[ -x $root$bin/postgres ]] || unpack_debs
furnish
[[ -e $root/pg/data/PG_VERSION ]] || make_cluster
in_root pg_ctl -D /pg/data -l /pg/log -s -w -o "-p $port -k /tmp" start
echo "postgresql://postgres@127.0.0.1:$port/postgres"
