#!/bin/sh
# Fetches an arm64 Python with LiteRT into $1 (220 MB): Debian packages unpacked without root, wheels from PyPI.
# Needs qemu-user-static to run what it makes. Does nothing when $1 is complete.
set -eu
here=$(mkdir -p "$1" && cd "$1" && pwd)
[ -e "$here/complete" ] && exit 0
apt=$here/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$here/sysroot" "$here/site"
: >"$apt/status"
suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
cat >"$apt/sources.list" <<EOF
deb [arch=arm64] http://deb.debian.org/debian $suite main
EOF
cat >"$apt/apt.conf" <<EOF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
Dir::State "$apt";
Dir::State::lists "$apt/lists";
Dir::State::status "$apt/status";
Dir::Cache "$apt";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "-";
APT::Install-Recommends "false";
APT::Sandbox::User "";
EOF
export APT_CONFIG="$apt/apt.conf"
apt-get update -qq
(cd "$apt/archives" && apt-get install -y -qq --download-only \
    python3-minimal libpython3-stdlib libstdc++6 coreutils dash busybox-static zlib1g libexpat1)
for package in "$apt"/archives/*.deb; do
    dpkg -x "$package" "$here/sysroot"
done
version=$(basename "$(ls "$here"/sysroot/usr/bin/python3.[0-9]* | head -n 1)" | tr -dc 0-9)
"${PYTHON:-python3}" -m pip install -q --target "$here/site" --only-binary=:all: --implementation cp \
    --python-version "$version" --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux2014_aarch64 --platform manylinux_2_17_aarch64 ai-edge-litert 'numpy<3'
rm -rf "$apt"
touch "$here/complete"
