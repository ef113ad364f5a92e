"""Makes proto/gen from the .proto files with the pinned grpcio-tools and mypy-protobuf (``make proto``)."""

import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent
FILES = ("deviceplugin", "pluginregistration", "podresources")


def generate(out: Path) -> None:
    """Write the Python modules and their typing stubs of every .proto below ``out``/devd/proto/gen.

    Raises RuntimeError when protoc refuses a file (its own text has gone to stderr).
    """
    import grpc_tools  # noqa: PLC0415 - a development dependency, needed by this command alone
    from grpc_tools import protoc  # noqa: PLC0415

    include = Path(grpc_tools.__file__).parent / "_proto"
    # protoc looks for its plugins on PATH, where this interpreter's need not be.
    scripts = sysconfig.get_path("scripts")
    arguments = [
        "protoc",
        f"-Idevd/proto/gen={ROOT}",
        f"-I{include}",
        f"--plugin=protoc-gen-mypy={scripts}/protoc-gen-mypy",
        f"--plugin=protoc-gen-mypy_grpc={scripts}/protoc-gen-mypy_grpc",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out={out}",
        f"--mypy_grpc_out={out}",
        *(f"devd/proto/gen/{name}.proto" for name in FILES),
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed")


if __name__ == "__main__":
    # The package directory is reached through devd/proto, a link to proto/.
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent)
