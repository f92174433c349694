#!/bin/sh
# Starts redis-server and two nodes that share their rooms, until Ctrl-C.
# Called by `make run-cluster` from the top of the repository.
set -eu
data=${DATA:-data}/cluster
if ! command -v redis-server >/dev/null 2>&1; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
		echo "installing redis-server"
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null
	else
		echo "run-cluster needs redis-server: apt-get install redis-server" >&2
		exit 1
	fi
fi
mkdir -p "$data/redis" "$data/plugins"
cp bin/plugins/* "$data/plugins/"
data=$(cd "$data" && pwd)

pids=""
stop() {
	trap - INT TERM EXIT
	for p in $pids; do kill "$p" 2>/dev/null || true; done
	wait
}
trap stop EXIT
trap 'stop; exit 0' INT TERM

# appendfsync always: an acknowledged message survives a power cut.
redis-server --port 6399 --bind 127.0.0.1 --dir "$data/redis" --appendonly yes --appendfsync always --save "" \
	--maxmemory-policy noeviction --daemonize no --loglevel warning &
pids="$pids $!"
for n in 0 1; do
	bin/platform run --data_dir "$data/node$n" --plugins.dir "$data/plugins" --redis.url redis://127.0.0.1:6399/0 \
		--listen "127.0.0.1:808$n" --tcp.listen "127.0.0.1:707$n" --admin.listen "127.0.0.1:909$n" &
	pids="$pids $!"
done
echo "Two nodes: open http://127.0.0.1:8080/ in one tab and http://127.0.0.1:8081/ in another. Ctrl-C ends all."
wait
