"""The control socket answers while the package on disk is being replaced by another one."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import edgeproxy

SOURCE = Path(edgeproxy.__file__).parent


def test_what_the_status_imports_late_is_there_once_the_control_socket_is() -> None:
    tree = ast.parse((SOURCE / "control/observe/status.py").read_text(encoding="utf-8"))
    late = {
        node.module
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert late
    code = (
        "import sys, edgeproxy.control.admin.control_socket\n"
        f"print(sorted(name for name in {sorted(late)} if name not in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
