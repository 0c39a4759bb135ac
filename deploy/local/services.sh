#!/usr/bin/env bash
# Kafka and Redis as local processes, without Docker: services.sh start|stop|status
# Data, logs and pid files are in .local/; both listen on 127.0.0.1 only.
set -euo pipefail

repo=$(cd "$(dirname "$0")/../.." && pwd)
state="$repo/.local/services"
libs=${MOODLINE_KAFKA_LIBS:-$repo/.local/kafka/libs}
kafka_port=${MOODLINE_LOCAL_KAFKA_PORT:-9092}
controller_port=${MOODLINE_LOCAL_CONTROLLER_PORT:-9093}
redis_port=${MOODLINE_LOCAL_REDIS_PORT:-6379}
wait_s=60

fail() {
    echo "services: $*" >&2
    exit 1
}

# pid of NAME, if the process that its pid file names runs and is ours: works in our folder
pid_of() {
    local pid
    pid=$(cat "$state/$1.pid" 2>/dev/null) || return 1
    [[ -n $pid && $(readlink "/proc/$pid/cwd") == "$state"* ]] && echo "$pid"
}

listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

start_process() { # NAME COMMAND…
    local name=$1
    shift
    (cd "$state" && exec setsid nohup "$@") >>"$state/$name.log" 2>&1 </dev/null &
    echo $! >"$state/$name.pid"
}

start_redis() {
    if pid_of redis >/dev/null; then return; fi
    command -v redis-server >/dev/null || fail "redis-server is missing; deploy/local/system-packages.sh installs it"
    if listens "$redis_port"; then fail "port $redis_port is taken by something else; set MOODLINE_LOCAL_REDIS_PORT"; fi
    mkdir -p "$state/redis"
    cat >"$state/redis.conf" <<CONF
bind 127.0.0.1
port $redis_port
dir $state/redis
appendonly yes
appendfsync everysec
save ""
CONF
    start_process redis redis-server "$state/redis.conf"
}

kafka_java() {
    java -Xms128m -Xmx512m -XX:+UseSerialGC -cp "$libs/*" "$@"
}

start_kafka() {
    if pid_of kafka >/dev/null; then return; fi
    command -v java >/dev/null || fail "java is missing; deploy/local/system-packages.sh installs it"
    compgen -G "$libs/kafka_*.jar" >/dev/null || fail "Kafka's jars are missing; deploy/local/kafka-setup.sh fetches them"
    if listens "$kafka_port"; then fail "port $kafka_port is taken by something else; set MOODLINE_LOCAL_KAFKA_PORT"; fi
    if listens "$controller_port"; then fail "port $controller_port is taken by something else; set MOODLINE_LOCAL_CONTROLLER_PORT"; fi
    cat >"$state/kafka.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller_port
listeners=PLAINTEXT://127.0.0.1:$kafka_port,CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$kafka_port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$state/kafka
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
log.cleaner.dedupe.buffer.size=8388608
CONF
    if [[ ! -f $state/kafka/meta.properties ]]; then
        kafka_java kafka.tools.StorageTool format --standalone --config "$state/kafka.properties" \
            --cluster-id "$(cat /proc/sys/kernel/random/uuid)" >>"$state/kafka.log" 2>&1 ||
            fail "Kafka's storage could not be formatted; see $state/kafka.log"
    fi
    start_process kafka java -Xms128m -Xmx512m -XX:+UseSerialGC -cp "$libs/*" kafka.Kafka "$state/kafka.properties"
}

await() { # NAME PORT
    local deadline=$((SECONDS + wait_s))
    until listens "$2"; do
        pid_of "$1" >/dev/null || fail "$1 ended at once; see $state/$1.log"
        ((SECONDS < deadline)) || fail "$1 does not answer on port $2; see $state/$1.log"
        sleep 0.2
    done
}

stop_process() { # NAME
    local pid
    if ! pid=$(pid_of "$1"); then
        rm -f "$state/$1.pid"
        return
    fi
    kill "$pid"
    local deadline=$((SECONDS + 20))
    while [[ -e /proc/$pid ]]; do
        ((SECONDS < deadline)) || { kill -9 "$pid" && break; }
        sleep 0.1
    done
    rm -f "$state/$1.pid"
    echo "services: $1 stopped" >&2
}

case ${1:-} in
start)
    mkdir -p "$state"
    start_redis
    start_kafka
    await redis "$redis_port"
    await kafka "$kafka_port"
    echo "export MOODLINE_BUS_URL=kafka://127.0.0.1:$kafka_port"
    echo "export MOODLINE_STORE_URL=redis://127.0.0.1:$redis_port/0"
    ;;
stop)
    stop_process kafka
    stop_process redis
    ;;
status)
    running=0
    for name in redis kafka; do
        if pid=$(pid_of "$name"); then
            echo "$name: running, process $pid"
        else
            echo "$name: stopped"
            running=1
        fi
    done
    exit "$running"
    ;;
*)
    echo "usage: services.sh start|stop|status" >&2
    exit 2
    ;;
esac
