#!/bin/sh
# Starts redis-server and three nodes that share their rooms, rules and plugins,
# until Ctrl-C. Called by `make run-cluster` from the top of the repository.
# DATA names the folder for data. What is set as PARLEY_... holds for each node,
# above all PARLEY_POLICY_GIT_URL, a repository of rules. REDIS_PORT is Redis's
# port, and CHAT_PORT, TCP_PORT and ADMIN_PORT are those of node 0; the others
# have the two that follow.
set -eu
redis_port=${REDIS_PORT:-6399}
chat=${CHAT_PORT:-8080} tcp=${TCP_PORT:-7070} admin=${ADMIN_PORT:-9090}
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
mkdir -p "$data/redis"
data=$(cd "$data" && pwd)
# One key, so that a token is good at every node.
[ -s "$data/jwt.key" ] || (umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$data/jwt.key")

# Ctrl-C goes to the whole terminal: in sessions of their own the processes hear
# of it by this script alone, once and in order.
apart=$(command -v setsid || true)

# node N starts node N, and again whenever it has been killed.
node() {
	child=""
	trap '[ -z "$child" ] || kill "$child" 2>/dev/null; wait; exit 0' INT TERM HUP
	while :; do
		$apart bin/platform run --data_dir "$data/node$1" --plugins.dir "$data/node$1/plugins" --redis.url "redis://127.0.0.1:$redis_port/0" \
			--cluster.node_name "node$1" --auth.jwt.key_file "$data/jwt.key" --log.level "${PARLEY_LOG_LEVEL:-warn}" \
			--listen "127.0.0.1:$((chat + $1))" --tcp.listen "127.0.0.1:$((tcp + $1))" --admin.listen "127.0.0.1:$((admin + $1))" >/dev/null &
		child=$!
		echo "$child" >"$data/node$1/pid"
		code=0
		wait "$child" || code=$?
		if [ "$code" != 137 ]; then # 128 + SIGKILL
			[ "$code" = 0 ] || echo "node$1 ended with exit code $code; the others go on" >&2
			exit "$code"
		fi
		echo "node$1 was killed; it starts again in 3 seconds" >&2
		sleep 3 &
		child=$!
		wait "$child"
	done
}

nodes=""
redis=""
stop() {
	trap "" INT TERM HUP; trap - EXIT
	for p in $nodes; do kill "$p" 2>/dev/null || true; done
	for p in $nodes; do wait "$p" 2>/dev/null || true; done
	# Redis goes last: nodes that drain still write to it.
	[ -z "$redis" ] || kill "$redis" 2>/dev/null || true
	wait
}
trap stop EXIT
trap 'stop; exit 0' INT TERM HUP

# appendfsync always: an acknowledged message survives a power cut.
$apart redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$data/redis" --appendonly yes --appendfsync always --save "" \
	--maxmemory-policy noeviction --daemonize no --logfile "$data/redis/redis.log" &
redis=$!
sleep 0.5
if ! kill -0 "$redis" 2>/dev/null; then
	echo "redis-server did not start:" >&2
	tail -n 2 "$data/redis/redis.log" >&2
	exit 1
fi
for n in 0 1 2; do
	sh examples/plugins/install.sh bin/plugins "$data/node$n/plugins"
done
for n in 0 1 2; do
	node "$n" &
	nodes="$nodes $!"
done
for n in 0 1 2; do
	bin/platform ready --admin "127.0.0.1:$((admin + n))" --wait 1m >/dev/null || echo "node$n is not ready" >&2
done
cat <<EOF
Three nodes, one conversation:
  chat     http://127.0.0.1:$chat/  http://127.0.0.1:$((chat + 1))/  http://127.0.0.1:$((chat + 2))/
  TCP      127.0.0.1:$tcp $((tcp + 1)) $((tcp + 2))
  admin    127.0.0.1:$admin $((admin + 1)) $((admin + 2))
Try, in another terminal:
  bin/platform nodes$([ "$admin" = 9090 ] || echo " --admin 127.0.0.1:$admin")
  bin/platform bench failover --target tcp://127.0.0.1:$tcp,tcp://127.0.0.1:$((tcp + 1)),tcp://127.0.0.1:$((tcp + 2))
  kill -9 \$(cat ${DATA:-data}/cluster/node1/pid)      # meanwhile; the node starts again in 3 seconds
Ctrl-C ends all.
EOF
wait
