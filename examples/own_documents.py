"""Your own documents to a served champion.

    python examples/own_documents.py out                  # with forty sample documents
    python examples/own_documents.py out my-folder        # with a folder of .txt and .md files

The flow extracts the documents, checks them, trains a model, promotes it and writes a report.
Then the champion is served, asked once, and stopped.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sample_documents import write_documents

from lvm.serving import Client

CONTEXT = [
    "The state of the Union depends on the condition of its finances.",
    "Revenue has grown for the third year, and the public debt has been reduced.",
]


def train_champion(documents: Path, root: Path) -> None:
    """The whole job: everything is written below `root`. One architecture and few epochs, so that the example takes a minute."""
    settings = ["--arch", "lstm", "--set", "model.width=128", "--set", "epochs=8", "--decoder", "none"]
    command = [sys.executable, "-m", "flows.retrain_all", "--source", str(documents), "--root", str(root), *settings]
    subprocess.run(command, check=True)


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Serve the champion for the length of the block; yields the address. Port 0 means a free one."""
    options = ["--model", str(root / "models" / "champion"), "--data", str(root / "data"), "--decoder", "none", "--port", "0"]
    with subprocess.Popen([sys.executable, "-m", "lvm", "serve", *options], stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            for line in server.stderr:
                if line.startswith("Ready at "):
                    yield line.split()[2].rstrip(";")
                    break
            else:
                raise SystemExit("the server did not start")
        finally:
            server.terminate()


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder for datasets, models and reports")
    parser.add_argument("documents", type=Path, nargs="?", help="folder of .txt and .md files")
    asked = parser.parse_args()
    documents = asked.documents or write_documents(asked.root / "documents")

    train_champion(documents, asked.root)
    with served(asked.root) as address, Client(address) as client:
        (step,) = client.predict_text(CONTEXT, neighbours=3)["steps"]
    print("\nAfter these sentences:", *CONTEXT, "\nthe model expects something like:", sep="\n")
    for found in step["neighbours"]:
        print(f"{found['score']:.3f}  {found['doc_id']}: {found['text']}")


if __name__ == "__main__":
    main()
