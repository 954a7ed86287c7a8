# shellcheck shell=bash
# What the scripts of the test servers share; each of them sources this. Sets CACHE and HERE.
#
# A running server is a folder: `pid` and `ports` (NAME=NUMBER lines) say what runs there, `log` what it said.
set -euo pipefail

# shellcheck disable=SC2034 # for the scripts that source this
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
NAME="$(basename "$0")"
CACHE="${ACEQUIA_SERVERS:-${XDG_CACHE_HOME:-${HOME:?set HOME, XDG_CACHE_HOME or ACEQUIA_SERVERS}/.cache}/acequia}"
case "$CACHE" in /*) ;; *) CACHE="$PWD/$CACHE" ;; esac

say() { echo "tests/servers/$NAME: $*" >&2; }

die() {
    say "$*"
    exit 1
}

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# debian PACKAGE...: install them, where we may.
debian() {
    command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || return 1
    say "installing $*"
    # Two scripts that install at once wait for each other.
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -q -y --no-install-recommends "$@")
    { "${install[@]}" || { apt-get update -q && "${install[@]}"; }; } >&2 || return 1
    hash -r
}

# need COMMAND DEBIAN_PACKAGE...: install them where we may, else say what is missing.
need() {
    local command="$1"
    shift
    command -v "$command" >/dev/null || debian "$@" || true
    command -v "$command" >/dev/null || die "the command $command is missing: install it (Debian: apt-get install $*)"
}

need_java() {
    need java openjdk-17-jre-headless
    local version
    version="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n1)"
    [ "${version:-0}" -ge 17 ] || die "java is version ${version:-unknown}: install Java 17 (Debian: apt-get install openjdk-17-jre-headless)"
}

# install_into FOLDER FUNCTION: FUNCTION fills a new folder, which becomes CACHE/FOLDER when it is whole. Two that run at
# once do it once; what a broken one left is removed by the next.
install_into() {
    local folder="$CACHE/$1" fill="$2"
    [ -e "$folder" ] && return
    mkdir -p "$CACHE"
    need flock util-linux
    (
        flock 9
        [ -e "$folder" ] && exit
        rm -rf "$folder.new"
        mkdir "$folder.new"
        cd "$folder.new"
        "$fill"
        mv "$folder.new" "$folder"
        say "installed $folder"
    ) 9>"$folder.lock"
}

# copy_jars POM: the jars of a Maven project and all that they need, into libs/.
copy_jars() {
    need_java
    need mvn maven
    say "fetching jars with Maven"
    mvn -q -B -f "$1" dependency:copy-dependencies -DoutputDirectory="$PWD/libs" -DincludeScope=runtime >&2
}

# need_go VERSION WHAT: a Go that can build it.
need_go() {
    need go golang-go
    local version
    version="$(GOTOOLCHAIN=local go env GOVERSION)"
    if [ "$(printf '%s\n' "go$1" "$version" | sort -V | head -n1)" != "go$1" ]; then
        die "go is ${version#go}, and $2 needs $1 or newer: install it from https://go.dev/dl"
    fi
}

# make_venv FOLDER REQUIREMENTS: CACHE/FOLDER becomes a virtual environment of Python with these packages. One holds its
# own path, so it is made where it will be: `bin/ready` says that it is whole.
make_venv() {
    local folder="$CACHE/$1" requirements="$2"
    [ -e "$folder/bin/ready" ] && return
    need python3 python3
    need flock util-linux
    mkdir -p "$CACHE"
    (
        flock 9
        [ -e "$folder/bin/ready" ] && exit
        rm -rf "$folder"
        python3 -c 'import ensurepip, venv' 2>/dev/null || debian python3-venv ||
            die "python3 can't make virtual environments: install that (Debian: apt-get install python3-venv)"
        python3 -m venv "$folder"
        "$folder/bin/python" -m pip install -q --disable-pip-version-check -r "$requirements" >&2
        touch "$folder/bin/ready"
        say "installed $folder"
    ) 9>"$folder.lock"
}

# running DATA: the process number of the server there, if it runs. A process that got the number later is not it: the
# server has its folder in its command line.
running() {
    local pid
    pid="$(cat "$1/pid" 2>/dev/null)" && kill -0 "$pid" 2>/dev/null || return 1
    if [ -d /proc/self ] && ! grep -qF "$(realpath "$1")" "/proc/$pid/cmdline"; then
        return 1
    fi
    echo "$pid"
}

# port DATA NAME
port() { sed -n "s/^$2=//p" "$1/ports" 2>/dev/null || true; }

# refuse_taken PORT...
refuse_taken() {
    local port
    for port in "$@"; do
        [[ "$port" =~ ^[1-9][0-9]*$ ]] || die "'$port' is not a port"
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            die "port $port of 127.0.0.1 is taken: stop what listens there, or give another"
        fi
    done
}

# prepare DATA NAME=PORT...: the folder of a server that is about to start.
prepare() {
    local data="$1"
    shift
    if running "$data" >/dev/null; then
        die "a server runs in $data already, with pid $(cat "$data/pid")"
    fi
    refuse_taken "${@#*=}"
    mkdir -p "$data"
    printf '%s\n' "$@" >"$data/ports"
    [ ! -e "$data/log" ] || mv "$data/log" "$data/log.before"
}

# become DATA COMMAND...: turn into the server, so that the caller's child is the server itself.
#
# With ACEQUIA_OWNED=1 a small process watches standard input and ends the server when that closes, whatever ended the
# one who held the other end: a test that panics or is killed leaves nothing behind. It removes the folder too, unless
# it was told to `keep` it.
become() {
    local data="$1"
    shift
    echo $$ >"$data/pid"
    if [ "${ACEQUIA_OWNED:-}" = 1 ]; then
        local server=$$
        (
            trap '' INT TERM HUP
            watcher="$BASHPID" word=
            read -r word || true
            # The number is the server's only as long as it is still our parent.
            if [ "$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$watcher/status")" = "$server" ]; then
                kill -KILL "$server" || true
                while [ -e "/proc/$server" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$server/status"; do sleep 0.05; done
            fi
            [ "$word" = keep ] || rm -rf -- "$data"
        ) <&0 >/dev/null 2>&1 &
    fi
    exec "$@" </dev/null >>"$data/log" 2>&1
}

# wait_until DATA SECONDS COMMAND...: until it succeeds; not if the server ends first, or is removed by its watcher.
wait_until() {
    local data="$1" end=$((SECONDS + $2)) seen=
    shift 2
    until "$@" 2>/dev/null; do
        if [ -d "$data" ]; then
            seen=1
        elif [ -n "$seen" ]; then
            die "the server in $data is gone"
        fi
        if [ -e "$data/pid" ] && ! kill -0 "$(cat "$data/pid")" 2>/dev/null; then
            tail -n 30 "$data/log" >&2 || true
            die "the server in $data ended; its log is above"
        fi
        if [ "$SECONDS" -ge "$end" ]; then
            tail -n 30 "$data/log" >&2 || true
            die "the server in $data is not ready in time; its log is above"
        fi
        sleep 0.05
    done
}

# listens DATA: whether something answers on its main port.
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$(port "$1" plain)"); }

# stop DATA: ask it to end, and insist after 20 seconds.
stop() {
    local data="$1" pid end=$((SECONDS + 20))
    [ -d "$data" ] || die "there is no folder $data"
    if ! pid="$(running "$data")"; then
        rm -f "$data/pid"
        return
    fi
    kill -TERM "$pid" 2>/dev/null || true
    # A frozen one hears it only when it goes on.
    kill -CONT "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$end" ] || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.05
    done
    rm -f "$data/pid"
}

# certificate DATA: a certificate for 127.0.0.1 and localhost that signs itself: DATA/tls/{cert,key,both}.pem.
certificate() {
    local folder="$1/tls"
    [ -e "$folder/both.pem" ] && return
    need openssl openssl
    mkdir -p "$folder"
    openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
        -keyout "$folder/key.pem" -out "$folder/cert.pem" 2>/dev/null || die "openssl can't make a certificate"
    cat "$folder/key.pem" "$folder/cert.pem" >"$folder/both.pem"
}
