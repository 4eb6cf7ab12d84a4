"""Every setting, in the order in which `config show` and the README list them.

A row names what the user types and what it means; `setting` says what follows from that.
"""

from __future__ import annotations

from pathlib import Path

from edgeproxy.config.setting import Setting, section, setting
from edgeproxy.core.backends import health
from edgeproxy.engine.choice import KINDS
from edgeproxy.listeners import spec
from edgeproxy.store.postgres.url import postgres_url
from edgeproxy.values import (
    boolean,
    command,
    host_header,
    http_path,
    interval,
    listen_address,
    name,
    networks,
    number,
    on_remove,
    one_of,
    page_path,
    protocols,
    region,
    seconds,
    secret,
    text,
    whole_number,
)

# fmt: off
# A row is one or two lines, as in a table. The formatter would give each argument its own line.
SETTINGS: tuple[Setting, ...] = (
    *section("proxy", variables="", rows=(
        setting("listen_addr", listen_address,
                "where clients are accepted; port 0 lets the system choose"),
    )),
    *section("database", variables="db", rows=(
        setting("path", Path, "the SQLite routing database; made with its schema if missing"),
    )),
    *section("proxy", variables="", rows=(
        setting("region", region, "the region of this POP", part="admission"),
        setting("app", text,
                "serve only the backends of this app; unset: all apps as one pool",
                part="admission"),
    )),
    *section("database", variables="db", rows=(
        setting("reload_secs", interval,
                "how often the routing database and the geo files are looked at"),
    )),
    *section("affinity", variables="binding", rows=(
        setting("ttl_secs", seconds,
                "how long a client stays bound after it last opened a connection; 0: not at all"),
        setting("gc_interval_secs", interval, "how often expired bindings are removed from memory"),
        setting("max_bindings", whole_number(1),
                "how many bindings are kept; the one unused for longest makes room",
                variable="EDGEPROXY_BINDING_MAX"),
    )),
    *section("geo", rows=(
        setting("database", Path,
                "a MaxMind-format country or city database; unset: the bundled one",
                variable="EDGEPROXY_GEOIP_PATH"),
        setting("overrides", Path,
                "a file of `cidr,country[,region]` lines that wins over the database"),
    )),
    *section("timeouts", part="engine", variables="", rows=(
        setting("connect_secs", interval,
                "how long one backend may take to answer before the next one is tried",
                field="connect_timeout_secs", variable="EDGEPROXY_CONNECT_TIMEOUT_SECS"),
    )),
    *section("proxy", variables="", rows=(
        setting("connect_attempts", whole_number(1, 100),
                "how many backends one client is tried on", part="admission"),
        setting("pass_over_secs", seconds,
                "how long new clients pass a backend over after a failed dial; doubles up to 60 s",
                part="ejection", field="first_secs"),
    )),
    *section("timeouts", part="engine", variables="", rows=(
        setting("idle_secs", seconds,
                "a connection without a byte either way for so long is closed; 0: never",
                field="idle_timeout_secs", variable="EDGEPROXY_IDLE_TIMEOUT_SECS"),
        setting("user_secs", seconds,
                "a peer that acknowledges nothing for so long is gone; 0: as the system decides",
                field="user_timeout_secs", variable="EDGEPROXY_USER_TIMEOUT_SECS"),
    )),
    *section("proxy", variables="", rows=(
        setting("shutdown_timeout_secs", seconds,
                "how long open connections may take to finish after SIGTERM"),
    )),
    *section("listeners", variables="", rows=(
        setting("listen", spec.listeners,
                "several listeners instead of one: ADDRESS=APP, =tls:APP or =sni, with commas "
                "between",
                variable="EDGEPROXY_LISTENERS", live=True),
        setting("routes", spec.routes,
                "which app is meant by a server name (sni), such as www.example.com=web,*=other",
                live=True),
        setting("proxy_protocol_in", networks,
                "networks of balancers, which have to begin with a PROXY header; unset: nobody "
                "does",
                live=True),
        setting("proxy_protocol_out", spec.proxy_out,
                "what backends are told of clients: off, v1 or v2, for one app as APP=v2"),
        setting("backend_tls", spec.backend_tls,
                "speak TLS with backends: the name in their certificate, for one app as APP=NAME"),
        setting("backend_tls_ca", Path,
                "a PEM file of who has signed the certificates of backends; unset: the system's"),
        setting("preamble_timeout_secs", interval,
                "how long a client may take for its PROXY header and its TLS server name",
                live=True),
    )),
    *section("tls", rows=(
        setting("enabled", boolean, "accept clients over TLS too"),
        setting("listen_addr", listen_address, "where they are accepted"),
        setting("cert", Path,
                "a PEM file: the certificate, then those that vouch for it; unset: self-signed"),
        setting("key", Path, "a PEM file with its private key, without a passphrase"),
        setting("cert_dir", Path,
                "a directory of NAME.crt and NAME.key, or both in NAME.pem; clients ask by "
                "server name"),
        setting("client_ca", Path,
                "a PEM file of authorities; clients have to show a certificate of one of them"),
        setting("alpn", protocols,
                "protocols that are offered by ALPN, the best first, with commas between; unset: "
                "none"),
        setting("handshake_timeout_secs", interval,
                "how long a client may take for the TLS handshake"),
    )),
    *section("entrance", part="access", variables="", live=True, rows=(
        setting("allow", networks,
                "networks whose clients may connect, with commas between; unset: all"),
        setting("deny", networks, "networks whose clients may not connect, allowed or not"),
        setting("max_conns_per_client", whole_number(0),
                "how many connections one client may have at a time; 0: no limit"),
    )),
    *section("rate_limit", live=True, rows=(
        setting("enabled", boolean, "limit how fast one client opens connections"),
        setting("max_requests", whole_number(1), "connections in each window"),
        setting("window_secs", number("seconds", least=0.001), "length of a window"),
        setting("burst", whole_number(1), "how many connections at once, after a pause"),
        setting("max_clients", whole_number(1),
                "how many clients are remembered; the one unseen for longest makes room"),
    )),
    *section("circuit_breaker", variables="circuit", live=True, rows=(
        setting("enabled", boolean,
                "cut off backends that fail again and again",
                variable="EDGEPROXY_CIRCUIT_BREAKER_ENABLED"),
        setting("failure_threshold", whole_number(1), "failures in a row that cut a backend off"),
        setting("success_threshold", whole_number(1), "answers after which it is in use again"),
        setting("timeout_secs", interval, "how long it is cut off before it is tried again"),
        setting("trials", whole_number(1), "how many clients at a time try it then"),
        setting("moment_secs", seconds,
                "a connection that the backend ends within so long, mute, is a failure too; 0: "
                "it is none",
                field="early_close_secs"),
    )),
    *section("health_check", part="probe", live=True, rows=(
        setting("enabled", boolean, "probe the backends"),
        setting("interval_secs", interval, "from one probe of a backend to the next"),
        setting("timeout_secs", interval, "how long a probe may take"),
        setting("type", one_of(*health.KINDS), "how a backend is probed", field="kind"),
        setting("path", http_path, "what is asked for by HTTP"),
        setting("status", whole_number(100, 599), "the status that is expected by HTTP"),
        setting("host", host_header,
                "the Host header of HTTP probes; unset: the backend's address"),
        setting("service", text,
                "which service is asked for by gRPC; unset: the server as a whole"),
        setting("command", command, "what is run by exec probes; exit code 0 is well"),
        setting("healthy_threshold", whole_number(1),
                "successes in a row that bring a backend up",
                part="health", variable="EDGEPROXY_HEALTH_HEALTHY_THRESHOLD"),
        setting("unhealthy_threshold", whole_number(1),
                "failures in a row that take it down",
                part="health", variable="EDGEPROXY_HEALTH_UNHEALTHY_THRESHOLD"),
        setting("slow_start_secs", seconds,
                "how long a backend that came up takes to its full share; 0: at once",
                part="health", variable="EDGEPROXY_HEALTH_SLOW_START_SECS"),
        setting("panic", boolean,
                "where probes call all backends of an app down, try them all",
                part="health", variable="EDGEPROXY_HEALTH_PANIC"),
    )),
    *section("pool", rows=(
        setting("enabled", boolean, "connect to backends before clients need it"),
        setting("max_per_backend", whole_number(1),
                "how many unused connections wait for each backend"),
        setting("idle_timeout_secs", interval, "how long one may wait before it is replaced"),
        setting("max_lifetime_secs", interval,
                "how old one may be; for so long after its last client a backend is kept warm"),
        setting("connect_timeout_secs", interval, "how long making one may take"),
    )),
    *section("metrics", rows=(
        setting("enabled", boolean, "serve metrics for Prometheus"),
        setting("listen_addr", listen_address, "where metrics are served"),
        setting("path", page_path, "the path of the metrics"),
    )),
    *section("config_watch", rows=(
        setting("enabled", boolean, "follow changes of the file named by EDGEPROXY_CONFIG"),
        setting("interval_secs", interval,
                "how often it is looked at, beside being told of changes"),
    )),
    *section("api", rows=(
        setting("enabled", boolean, "serve the API by which backends register and leave"),
        setting("listen_addr", listen_address, "where the API is served"),
        setting("heartbeat_ttl_secs", interval,
                "a registered backend that is silent for so long gets no clients and is removed",
                variable="EDGEPROXY_HEARTBEAT_TTL_SECS"),
        setting("home", name,
                "what this POP is called where several register backends in one database; unset: "
                "on a server this host and EDGEPROXY_API_LISTEN_ADDR"),
        setting("allow", networks,
                "networks that may call the API; unset: loopback, private and unique local "
                "addresses"),
        setting("token", secret,
                "callers have to show this as a bearer token, except for /health and /ready",
                secret=True),
        setting("token_file", Path, "a file that holds the token instead"),
        setting("own_address_only", boolean,
                "a backend may register, renew, change and remove only the address that it calls "
                "from"),
        setting("max_backends", whole_number(1), "how many backends may be registered"),
        setting("rate_limit", whole_number(0),
                "requests in a second of one caller, after a pause twice as many; 0: no limit"),
        setting("timeout_secs", interval, "how long a request and its answer may take"),
    )),
    *section("postgres", rows=(
        setting("enabled", boolean, "take the backends from a PostgreSQL server instead of a file"),
        setting("url", postgres_url,
                "where it is, such as postgres://user:password@host:5432/database", secret=True),
        setting("max_connections", whole_number(2, 1000),
                "how many connections to it there may be; one listens for changes"),
        setting("min_connections", whole_number(0, 1000), "how many of them are kept open"),
        setting("connect_timeout_secs", interval,
                "how long one of its hosts may take to answer before the next one is tried"),
        setting("query_timeout_secs", interval, "how long a read or an edit there may take"),
        setting("reload_secs", interval,
                "how often it and the geo files are looked at; it tells of changes by itself, too"),
        setting("snapshot", Path,
                "a file that keeps the last good table for a start while it is down; unset: none"),
    )),
    *section("proxy", variables="", rows=(
        setting("engine", one_of(*KINDS), "what carries the bytes", part="engine", field="kind"),
        setting("byte_threads", whole_number(0, 64),
                "how many threads of the native engine carry bytes; 0: one for each CPU",
                part="engine"),
        setting("drain_spread_secs", seconds,
                "those that have not finished are closed one by one in the last so many seconds"),
        setting("on_remove", on_remove,
                "what happens to connections of a removed backend: keep, close or drain:SECONDS"),
        setting("control_socket", Path,
                "a Unix socket for `edgeproxy status`, `top`, `sessions`, `drain`; unset: none"),
    )),
    *section("log", rows=(
        setting("access_log", text,
                "where one line of JSON for each connection goes: off, - for stdout, or a file",
                part="proxy", variable="EDGEPROXY_ACCESS_LOG"),
        setting("format", one_of("text", "json"), "the form of the lines on stderr"),
        setting("debug", boolean, "log more", variable="DEBUG", live=True),
    )),
)
# fmt: on
