"""`python -P -B __main__.py SETTINGS`: import this folder as a package without the rest of `components`, and run it."""

import importlib.util
import sys
from pathlib import Path


def main(settings: str) -> None:
    """Import this folder as `scoring_server`, and serve."""
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location("scoring_server", folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert spec is not None
    sys.modules["scoring_server"] = importlib.util.module_from_spec(spec)
    importlib.import_module("scoring_server.server").main(settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
