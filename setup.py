"""Builds the native engine where that is possible; everything else is in pyproject.toml.

Without a compiler, without Cython, or with EDGEPROXY_NO_NATIVE=1 the package is complete
all the same: the portable engine takes over.
"""

import os
import sys
from pathlib import Path

from setuptools import Extension, setup


def extensions() -> list[Extension]:
    """Return the modules of the native engine; a failing build of one is a warning."""
    if os.environ.get("EDGEPROXY_NO_NATIVE", "") not in ("", "0") or sys.platform != "linux":
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    modules = [
        Extension(
            f"edgeproxy.engine.native.{file.stem}",
            [str(file)],
            define_macros=[("_GNU_SOURCE", "1")],
            extra_compile_args=["-O2", "-pthread", "-Wno-unused-function"],
            extra_link_args=["-pthread"],
            optional=True,
        )
        for file in sorted(Path("src/edgeproxy/engine/native").glob("*.pyx"))
    ]
    built: list[Extension] = cythonize(modules, build_dir="build/cython", include_path=["src"])
    for module in built:
        module.optional = True
    return built


setup(ext_modules=extensions(), options={"build_ext": {"parallel": os.cpu_count()}})
