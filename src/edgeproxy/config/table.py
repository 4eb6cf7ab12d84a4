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
                "address to accept clients on; port 0 lets the system choose"),
    )),
    *section("database", variables="db", rows=(
        setting("path", Path, "the SQLite routing database; created with its schema if missing"),
    )),
    *section("proxy", part="admission", variables="", rows=(
        setting("region", region, "the region of this POP"),
        setting("app", text, "serve only the backends of this app; unset: all apps as one pool"),
    )),
    *section("database", variables="db", rows=(
        setting("reload_secs", interval,
                "time between two checks of the routing database and the geo files for changes"),
    )),
    *section("affinity", variables="binding", rows=(
        setting("ttl_secs", seconds,
                "how long a client keeps its backend after its last new connection; 0: no binding"),
        setting("max_bindings", whole_number(1),
                "maximum number of bindings; a new one replaces the least recently used",
                variable="EDGEPROXY_BINDING_MAX"),
    )),
    *section("geo", rows=(
        setting("database", Path,
                "a country or city database in MaxMind format; unset: the bundled one",
                variable="EDGEPROXY_GEOIP_PATH"),
        setting("overrides", Path,
                "a file of `cidr,country[,region]` lines that override the geo database"),
    )),
    *section("timeouts", part="engine", variables="", rows=(
        setting("connect_secs", interval,
                "how long to wait for one backend to accept before trying the next",
                field="connect_timeout_secs", variable="EDGEPROXY_CONNECT_TIMEOUT_SECS"),
    )),
    *section("proxy", part="admission", variables="", rows=(
        setting("connect_attempts", whole_number(1, 100),
                "maximum number of backends to try for one client"),
    )),
    *section("proxy", part="ejection", variables="", rows=(
        setting("pass_over_secs", seconds,
                "how long new clients avoid a backend after a failed dial; doubles up to 60 s",
                field="first_secs"),
    )),
    *section("timeouts", part="engine", variables="", rows=(
        setting("idle_secs", seconds,
                "close a connection after this time without a byte in either direction; 0: never",
                field="idle_timeout_secs", variable="EDGEPROXY_IDLE_TIMEOUT_SECS"),
        setting("user_secs", seconds,
                "give up on a peer that acknowledges nothing for this time; 0: system default",
                field="user_timeout_secs", variable="EDGEPROXY_USER_TIMEOUT_SECS"),
    )),
    *section("proxy", variables="", rows=(
        setting("shutdown_timeout_secs", seconds,
                "how long open connections may take to finish after SIGTERM"),
    )),
    *section("listeners", variables="", rows=(
        setting("listen", spec.listeners,
                "listeners, separated by commas: ADDRESS=APP, ADDRESS=tls:APP or "
                "ADDRESS=sni; unset: one",
                variable="EDGEPROXY_LISTENERS", live=True),
        setting("routes", spec.routes,
                "the app of each server name (sni), such as www.example.com=web,*=other",
                live=True),
        setting("proxy_protocol_in", networks,
                "networks of load balancers, which must send a PROXY header first; unset: none",
                live=True),
        setting("proxy_protocol_out", spec.proxy_protocol_out,
                "PROXY header to send to backends: off, v1 or v2; for one app: APP=v2"),
        setting("backend_tls", spec.backend_tls,
                "name in the certificates of backends that speak TLS; for one app: APP=NAME"),
        setting("backend_tls_ca", Path,
                "a PEM file of authorities that sign backend certificates; unset: the system's"),
        setting("client_setup_timeout_secs", interval,
                "how long a client may take for its PROXY header and server name, and then for TLS",
                live=True),
    )),
    *section("tls", rows=(
        setting("enabled", boolean, "accept clients over TLS too"),
        setting("listen_addr", listen_address, "address to accept TLS clients on"),
        setting("cert", Path,
                "a PEM file: the certificate, then its intermediates; unset: self-signed"),
        setting("key", Path,
                "a PEM file: the private key of the certificate, without a passphrase"),
        setting("cert_dir", Path,
                "certificates by server name: a directory of NAME.crt and NAME.key, or NAME.pem"),
        setting("client_ca", Path,
                "a PEM file of authorities, one of which must have signed a client's certificate"),
        setting("alpn", protocols,
                "ALPN protocols to offer, preferred first, separated by commas; unset: none"),
    )),
    *section("entrance", part="access", variables="", live=True, rows=(
        setting("allow", networks,
                "networks whose clients may connect, separated by commas; unset: all"),
        setting("deny", networks,
                "networks whose clients may not connect, even if EDGEPROXY_ALLOW lists them"),
        setting("max_conns_per_client", whole_number(0),
                "maximum number of open connections of one client; 0: no limit"),
        setting("client_ipv4_prefix", whole_number(16, 32),
                "leading bits of an IPv4 address that one client has"),
        setting("client_ipv6_prefix", whole_number(32, 128),
                "leading bits of an IPv6 address that one client has"),
        setting("clients_per_site", whole_number(0),
                "how many clients' limits hold for a whole IPv6 /48; 0: no further limit"),
    )),
    *section("rate_limit", live=True, rows=(
        setting("enabled", boolean, "limit how fast one client opens connections"),
        setting("max_requests", whole_number(1), "connections of one client per window"),
        setting("window_secs", number("seconds", least=0.001), "length of a window"),
        setting("burst", whole_number(1),
                "connections that one client may open at once after a pause"),
    )),
    *section("circuit_breaker", variables="circuit", live=True, rows=(
        setting("enabled", boolean,
                "stop using backends that fail repeatedly",
                variable="EDGEPROXY_CIRCUIT_BREAKER_ENABLED"),
        setting("failure_threshold", whole_number(1),
                "failures in a row that open the circuit of a backend"),
        setting("success_threshold", whole_number(1),
                "successful trials that close the circuit again"),
        setting("timeout_secs", interval, "how long a circuit stays open before trials begin"),
        setting("early_close_secs", seconds,
                "count a connection as failed if the backend closes it within this time without "
                "sending a byte; 0: never"),
    )),
    *section("health_check", part="probe", live=True, rows=(
        setting("enabled", boolean, "probe the backends"),
        setting("interval_secs", interval, "time between two probes of a backend"),
        setting("timeout_secs", interval, "how long a probe may take"),
        setting("type", one_of(*health.KINDS),
                "how to probe: tcp, http, grpc or exec", field="kind"),
        setting("path", http_path, "path of HTTP probes"),
        setting("status", whole_number(100, 599), "status that HTTP probes expect"),
        setting("host", host_header,
                "Host header of HTTP probes; unset: the backend's name in EDGEPROXY_BACKEND_TLS, "
                "else its address"),
        setting("service", text, "service that gRPC probes ask for; unset: the server as a whole"),
        setting("command", command, "command that exec probes run; exit code 0 means healthy"),
    )),
    *section("health_check", part="health", variables="health", live=True, rows=(
        setting("healthy_threshold", whole_number(1),
                "successes in a row that mark a backend as healthy"),
        setting("unhealthy_threshold", whole_number(1),
                "failures in a row that mark a backend as unhealthy"),
        setting("slow_start_secs", seconds,
                "how long a recovered backend takes to reach its full share; 0: no slow start"),
        setting("panic", boolean,
                "if probes report every backend of an app as unhealthy, use them all"),
    )),
    *section("pool", rows=(
        setting("enabled", boolean, "connect to backends before clients need it"),
        setting("max_per_backend", whole_number(1),
                "maximum number of unused connections to each backend"),
        setting("idle_timeout_secs", interval,
                "replace a connection that stays unused for this time"),
        setting("max_lifetime_secs", interval,
                "maximum age of a connection; a backend unused for this time leaves the pool"),
        setting("connect_timeout_secs", interval, "how long opening a pooled connection may take"),
    )),
    *section("metrics", rows=(
        setting("enabled", boolean, "serve metrics for Prometheus"),
        setting("listen_addr", listen_address, "address to serve metrics on"),
        setting("path", page_path, "path of the metrics page"),
        setting("allow", networks,
                "networks that may read metrics; unset: loopback, private and unique local ones"),
    )),
    *section("config_watch", rows=(
        setting("enabled", boolean, "apply changes of the configuration file"),
        setting("interval_secs", interval,
                "time between two checks of the file, besides change notifications"),
    )),
    *section("api", rows=(
        setting("enabled", boolean, "serve the API that registers and deregisters backends"),
        setting("listen_addr", listen_address, "address to serve the API on"),
        setting("heartbeat_ttl_secs", interval,
                "remove a registered backend after this time without a heartbeat",
                variable="EDGEPROXY_HEARTBEAT_TTL_SECS"),
        setting("home", name,
                "name of this POP, if several register backends in one database; unset, with "
                "PostgreSQL: the host name and EDGEPROXY_API_LISTEN_ADDR"),
        setting("allow", networks,
                "networks that may call the API; unset: loopback, private and unique local ones"),
        setting("token", secret,
                "bearer token that callers must send, except for /health and /ready", secret=True),
        setting("token_file", Path,
                "a file that contains the token, instead of EDGEPROXY_API_TOKEN"),
        setting("own_address_only", boolean,
                "a caller may register, renew, change and remove only backends at its own address"),
        setting("max_backends", whole_number(1), "maximum number of registered backends"),
        setting("register_networks", networks,
                "networks that backends may register in; unset: all but those that none may"),
    )),
    *section("postgres", rows=(
        setting("enabled", boolean, "read the backends from a PostgreSQL server instead of a file"),
        setting("url", postgres_url,
                "the server, such as postgres://user:password@host:5432/database", secret=True),
        setting("max_connections", whole_number(2, 1000),
                "maximum number of connections to the server; one of them listens for changes"),
        setting("min_connections", whole_number(0, 1000), "number of connections to keep open"),
        setting("connect_timeout_secs", interval,
                "how long to wait for one host of the server to answer before trying the next"),
        setting("query_timeout_secs", interval, "how long a read or a write may take"),
        setting("reload_secs", interval,
                "time between two checks of the server and the geo files for missed changes"),
        setting("snapshot", Path,
                "a file with the last good table, for starts without the server; unset: none"),
    )),
    *section("proxy", part="engine", variables="", rows=(
        setting("engine", one_of(*KINDS),
                "the engine that carries the bytes: auto, native or portable", field="kind"),
        setting("byte_threads", whole_number(0, 1024),
                "number of threads of the native engine that carry bytes; 0: one per CPU"),
    )),
    *section("proxy", variables="", rows=(
        setting("drain_spread_secs", seconds,
                "last part of the shutdown, in which remaining connections close one by one"),
        setting("on_remove", on_remove,
                "what happens to connections of a removed backend: keep, close or drain:SECONDS"),
        setting("control_socket", text,
                "a Unix socket for `edgeproxy status`, `top`, `sessions`, `drain`; off: none; "
                "unset: /run/edgeproxy/control, else edgeproxy/control in XDG_RUNTIME_DIR"),
    )),
    *section("log", part="proxy", variables="", rows=(
        setting("access_log", text,
                "where to write one JSON line per connection: off, - for stdout, or a file"),
    )),
    *section("log", rows=(
        setting("format", one_of("text", "json"), "format of the log on stderr: text or json"),
        setting("level", one_of("debug", "info", "warning", "error"),
                "least severe events to log: debug, info, warning or error", live=True),
    )),
)
# fmt: on
