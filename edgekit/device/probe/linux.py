"""Facts, telemetry and clocks that every Linux gives through /proc and /sys."""

from __future__ import annotations

FACTS = r"""
fact machine "$(uname -m)"
fact kernel "$(uname -r)"
fact system "$(uname -s)"
fact boot_id "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
fact cores "$(getconf _NPROCESSORS_ONLN 2>/dev/null || nproc)"
fact cpu "$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)"
fact cpu_part "$(sed -n 's/^CPU part[[:space:]]*: //p' /proc/cpuinfo | sort -u | tr '\n' ' ')"
fact memory_kb "$(sed -n 's/^MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)"
fact free_memory_kb "$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)"
fact os "$(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release 2>/dev/null)"
fact model "$(cat /sys/firmware/devicetree/base/model 2>/dev/null | tr -d '\000')"
cpufreq() { cat /sys/devices/system/cpu/cpu[0-9]*/cpufreq/"$1" 2>/dev/null | sort -u | tr '\n' ' '; }
fact governor "$(cpufreq scaling_governor)"
fact max_khz "$(cpufreq cpuinfo_max_freq)"
fact load "$(cut -d ' ' -f 1 /proc/loadavg 2>/dev/null)"
"""

# `read` is the shell's own: sampling starts no process on the board.
SAMPLE = r"""
for zone in /sys/class/thermal/thermal_zone*; do
    IFS= read -r value 2>/dev/null <"$zone/temp" || continue
    IFS= read -r name 2>/dev/null <"$zone/type" || name=${zone##*/}
    echo "temperature $value $name"
done
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
    IFS= read -r clock 2>/dev/null <"$cpu/cpufreq/scaling_cur_freq" || continue
    IFS= read -r governor 2>/dev/null <"$cpu/cpufreq/scaling_governor" || governor=unknown
    echo "clock $clock ${cpu##*/} $governor"
done
"""

UNDO = r"""
for file in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
    [ -e "$file" ] || continue
    echo "echo $(cat "$file") | { tee $file 2>/dev/null || sudo -n tee $file; } >/dev/null"
done
"""

LOCK = r"""
set -e
for file in /sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor; do
    [ -e "$file" ] || { echo "there is no governor" >&2; exit 1; }
    echo performance | { tee "$file" 2>/dev/null || sudo -n tee "$file"; } >/dev/null
    [ "$(cat "$file")" = performance ] || { echo "$file stays $(cat "$file")" >&2; exit 1; }
done
echo "governor performance"
"""
