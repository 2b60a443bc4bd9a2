"""The shape of the package: imports point one way, and nothing is imported that is not used."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from support.servers import ROOT

PACKAGE = ROOT / "wsgi_throttle"

PIPELINE = [
    *("testing", "__main__", "cli", "__init__", "middleware", "engine", "body_last", "observers"),
    *("verdict", "reload", "config", "rules", "http", "identity", "storage", "hooks", "networks"),
    *("limits", "strategies", "decision", "log_once", "clock", "cache", "errors"),
]
"""Modules and packages, from the whole to its parts: each may import those after it. The modules
inside a package have no order, but may not import each other in a circle."""

FILES = sorted(PACKAGE.rglob("*.py"))


def module_name(file: Path) -> str:
    """The name of the module, without the package's: ``storage.redis``; ``storage`` for its
    __init__.py."""
    parts = list(file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {module_name(file): file for file in FILES}


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """The package's own modules that are imported anywhere in a file, with the line numbers."""
    package = ["wsgi_throttle", *file.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            # `from a import b`: b may be a module, or a name in module a.
            targets = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        for target in targets:
            first, *rest = target.split(".")
            if first != "wsgi_throttle":
                continue
            while rest and ".".join(rest) not in MODULES:
                rest.pop()
            yield ".".join(rest) or "__init__", node.lineno


def test_the_page_on_the_architecture_has_a_line_for_every_file() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    listed = []
    folders: list[str] = []
    for indent, name in re.findall(r"^((?:  )*)(\w+(?:/|\.py|\.lua)) +\S", text, re.MULTILINE):
        path = "".join([*folders[: len(indent) // 2], name])
        folders[len(indent) // 2 :] = [name]
        listed.append(f"{path}__init__.py" if path.endswith("/") else path)
    files = [*FILES, *PACKAGE.rglob("*.lua")]
    assert sorted({file.relative_to(PACKAGE).as_posix() for file in files} ^ set(listed)) == []
    assert len(listed) == len(files), "a file is listed twice"


def test_the_page_on_the_architecture_names_what_there_is() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    code = "".join(file.read_text() for file in FILES) + Path(__file__).read_text()
    names = {part for name in re.findall(r"`([A-Za-z_.]+)`", text) for part in name.split(".")}
    assert not names - set(re.findall(r"\w+", code))


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down_the_pipeline(name: str) -> None:
    own = name.partition(".")[0]
    assert own in PIPELINE, f"{name} has no place in the pipeline"
    for target, line in imported(MODULES[name]):
        other = target.partition(".")[0]
        assert other == own or PIPELINE.index(other) > PIPELINE.index(own), (
            f"{name}, line {line}: imports {target}, which stands above it"
        )


def test_no_import_runs_in_a_circle() -> None:
    graph = {
        name: {target for target, _ in imported(file)} - {name} for name, file in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError


@pytest.mark.parametrize("name", MODULES)
def test_no_function_imports(name: str) -> None:
    """Imports are at the top of modules, so that none runs during a request. Optional modules are
    imported by name when the configuration asks for them."""
    tree = ast.parse(MODULES[name].read_text())
    for function in ast.walk(tree):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            for node in ast.walk(function):
                assert not isinstance(node, (ast.Import, ast.ImportFrom)), (
                    f"{name}, line {node.lineno}: an import in a function"
                )


LONGEST_MODULE = 320
LONGEST_FUNCTION = 60


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_functions_are_short_enough_to_be_read_at_once(name: str) -> None:
    text = MODULES[name].read_text()
    assert len(text.splitlines()) <= LONGEST_MODULE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{node.name}, line {node.lineno}: {lines} lines"


def run(program: str) -> str:
    """Run a program in a new interpreter, and return its output."""
    command = [sys.executable, "-W", "error", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def loaded(storage: str) -> set[str]:
    """The modules that a new interpreter has loaded after one request on that storage."""
    program = f"""
import sys
from wsgi_throttle import Throttle
throttle = Throttle(lambda environ, start_response: [b""], {{
    "storage": {storage!r}, "default_limits": "5 per minute",
}})
environ = {{"REQUEST_METHOD": "GET", "PATH_INFO": "/", "REMOTE_ADDR": "192.0.2.1"}}
throttle(environ, lambda status, headers, exc_info=None: None)
throttle.close()
print(*sys.modules)
"""
    return set(run(program).split())


def test_memory_loads_neither_redis_nor_lmdb() -> None:
    assert not {"redis", "lmdb"} & loaded("memory://")


def test_shared_loads_lmdb_alone(tmp_path: Path) -> None:
    assert {"redis", "lmdb"} & loaded(f"shared://{tmp_path}") == {"lmdb"}


def test_redis_loads_redis_alone() -> None:
    # Nothing listens on port 1, but the start does not need the server.
    assert {"redis", "lmdb"} & loaded("redis://127.0.0.1:1") == {"redis"}


def test_requests_import_open_and_compile_nothing() -> None:
    """Not even the first request of a kind: all requests of that moment would wait for the
    import."""
    program = """
import sys
from io import BytesIO
from wsgi_throttle import Throttle

def application(environ, start_response):
    start_response("200 OK", [])
    return [b""]

throttle = Throttle(application, {
    "storage": "memory://",
    "session": {"kind": "flask", "secret_key": "s"},
    "default_limits": "5 per minute",
    "rules": [
        {"path": "/free/**", "exempt": True},
        {"path": "/one", "limits": "1 per minute"},
        {"path": "/user", "key": "session-user", "limits": "1 per minute"},
    ],
})
seen = []
requests = [
    {"PATH_INFO": path, "HTTP_ACCEPT": accept, "REMOTE_ADDR": address, "HTTP_COOKIE": cookie}
    for path in ("/", "/free/x", "/one", "/x/../one", "/user")
    for accept in ("*/*", "text/html", "text/plain")
    for address in ("192.0.2.1", "2001:db8::1", "")
    for cookie in ("", "session=forged")
]
def hook(event, arguments):
    if event in ("import", "open", "compile"):
        seen.append((event, arguments[0]))
sys.addaudithook(hook)
statuses = set()
for request in requests:
    environ = {"REQUEST_METHOD": "GET", "wsgi.input": BytesIO(), **request}
    for _ in throttle(environ, lambda status, headers, exc_info=None: statuses.add(status[:3])):
        pass
found = list(seen)
assert statuses == {"200", "429"}, statuses
assert not found, found
"""
    run(program)
