"""The option that commands on a running proxy share."""

from __future__ import annotations

import argparse


def socket_option() -> argparse.ArgumentParser:
    """Return the `--socket` option, for `parents=`."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--socket",
        metavar="PATH",
        help="the control socket of the proxy (default: EDGEPROXY_CONTROL_SOCKET, else that of "
        "the configuration file, else /run/edgeproxy/control, else edgeproxy/control in "
        "XDG_RUNTIME_DIR)",
    )
    return parent
