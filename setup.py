"""Builds the native engine where that is possible; everything else is in pyproject.toml.

Without a compiler, without Cython, or with EDGEPROXY_NO_NATIVE=1 the package is complete
all the same: the portable engine takes over.
"""

import os
import shlex
import sys
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools._distutils.ccompiler import new_compiler
from setuptools._distutils.errors import CompileError, LinkError
from setuptools._distutils.sysconfig import customize_compiler

NATIVE = Path("src/edgeproxy/engine/native")
OPENSSL = ["ssl", "crypto"]
NEEDS_OPENSSL = "edgeproxy.engine.native.tls."
USES_OPENSSL = """
#include <openssl/ssl.h>
int main(void) { return SSL_CTX_new(TLS_server_method()) == NULL; }
"""


def has_openssl() -> bool:
    """Return whether programs can be built with OpenSSL here."""
    if os.environ.get("EDGEPROXY_NO_OPENSSL", "") not in ("", "0"):
        return False
    compiler = new_compiler()
    customize_compiler(compiler)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "uses.c")
        source.write_text(USES_OPENSSL)
        try:
            objects = compiler.compile([str(source)], output_dir=folder)
            # What is built with a sanitizer has to be linked with it, too.
            flags = shlex.split(os.environ.get("LDFLAGS", ""))
            compiler.link_executable(
                objects, "uses", output_dir=folder, libraries=OPENSSL, extra_preargs=flags
            )
        except (CompileError, LinkError):
            return False
    return True


def module_of(file: Path) -> str:
    """Return the full name of the module that a source file makes."""
    return ".".join(file.relative_to("src").with_suffix("").parts)


def extensions() -> list[Extension]:
    """Return the modules of the native engine; a failing build of one is a warning."""
    if os.environ.get("EDGEPROXY_NO_NATIVE", "") not in ("", "0") or sys.platform != "linux":
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        return []
    with_tls = has_openssl()
    sources = {module_of(file): file for file in sorted(NATIVE.rglob("*.pyx"))}
    stubs = {name: file for name, file in sources.items() if file.stem.startswith("stub_")}
    for name, file in stubs.items():
        del sources[name]
        if not with_tls:
            sources[name.replace("stub_", "")] = file
    if not with_tls:
        del sources[f"{NEEDS_OPENSSL}certificates"]
    modules = [
        Extension(
            name,
            [str(file)],
            define_macros=[("_GNU_SOURCE", "1")],
            extra_compile_args=["-O2", "-pthread", "-Wno-unused-function"],
            extra_link_args=["-pthread"],
            libraries=OPENSSL if with_tls and name.startswith(NEEDS_OPENSSL) else [],
            optional=True,
        )
        for name, file in sources.items()
    ]
    built: list[Extension] = cythonize(modules, build_dir="build/cython", include_path=["src"])
    for module in built:
        module.optional = True
    return built


setup(ext_modules=extensions(), options={"build_ext": {"parallel": os.cpu_count()}})
